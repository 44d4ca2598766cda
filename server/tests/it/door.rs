//! The short way of Range, Put and Txn answers as the long one does, however a request comes; and other HTTP on the same
//! connection finds its way.

use crate::damage::metric;
use crate::support::{Client, TestMember, bytes, put, range, run, soon};
use ::bytes::Bytes;
use coffer_server::proto::etcdserverpb as pb;
use coffer_server::proto::etcdserverpb::kv_client::KvClient;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";

async fn connect(member: &TestMember) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(member.endpoint.trim_start_matches("http://")).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    send.ready().await.unwrap()
}

fn request(path: &str) -> Request<()> {
    Request::post(format!("http://member{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

fn framed(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    [&[0][..], &u32::try_from(body.len()).unwrap().to_be_bytes(), &body].concat()
}

/// Sends pieces, each in a DATA frame of its own; the answer's message and its status.
async fn ask(send: &SendRequest<Bytes>, request: Request<()>, pieces: Vec<Vec<u8>>) -> Result<Bytes, Status> {
    let mut send = send.clone().ready().await.unwrap();
    let (response, mut stream) = send.send_request(request, false).unwrap();
    for piece in pieces {
        stream.send_data(piece.into(), false).unwrap();
        tokio::task::yield_now().await;
    }
    stream.send_data(Bytes::new(), true).unwrap();
    let (head, mut body) = soon(response).await.unwrap().into_parts();
    assert_eq!(head.headers["content-type"], "application/grpc");
    let mut message = Vec::new();
    while let Some(part) = soon(body.data()).await {
        let part = part.unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        message.extend_from_slice(&part);
    }
    let trailers = soon(body.trailers()).await.unwrap();
    match status(trailers.as_ref().unwrap_or(&head.headers)) {
        told if told.code() == Code::Ok => Ok(Bytes::from(message).slice(5..)),
        told => Err(told),
    }
}

fn status(headers: &HeaderMap) -> Status {
    Status::from_header_map(headers).expect("every answer has a status")
}

#[test]
fn a_message_may_come_in_any_pieces_and_with_bytes_behind_it() {
    let mut member = TestMember::start(&[]);
    run(async {
        let send = connect(&member).await;
        let value = "v".repeat(500);
        let whole = framed(&put("key", &value));
        for piece in [1, 4, 5, 6, 100, whole.len()] {
            let pieces = whole.chunks(piece).map(<[u8]>::to_vec).collect();
            let answer = ask(&send, request(PUT), pieces).await.unwrap();
            assert!(pb::PutResponse::decode(answer).unwrap().header.unwrap().revision > 1);
            let pieces = vec![framed(&range("key", "")), b"behind it".to_vec()];
            let answer = ask(&send, request(RANGE), pieces).await.unwrap();
            assert_eq!(pb::RangeResponse::decode(answer).unwrap().kvs[0].value, value.as_bytes());
        }
    });
    member.stop();
}

#[test]
fn what_is_no_message_is_told_so_and_the_connection_serves_on() {
    let mut member = TestMember::start(&["--max-request-bytes=1000"]);
    run(async {
        let send = connect(&member).await;
        let large = framed(&put("key", &"v".repeat(600_000)));
        let limit = 1_000 + 512 * 1024;
        let larger = format!("grpc: received message larger than max ({} vs. {limit})", large.len() - 5);
        let cases = [
            (vec![], Code::Internal, "Missing request message."),
            (vec![vec![0, 0]], Code::Internal, "Unexpected EOF decoding stream."),
            (vec![vec![0, 0, 0, 0, 9, 1]], Code::Internal, "Unexpected EOF decoding stream."),
            (
                vec![vec![1, 0, 0, 0, 1, 1]],
                Code::Internal,
                "protocol error: received message with compressed-flag but no grpc-encoding was specified",
            ),
            (vec![vec![7, 0, 0, 0, 1, 1]], Code::Internal, "protocol error: received message with invalid"),
            (vec![vec![0, 0, 0, 0, 1, 0xff]], Code::Internal, "failed to decode Protobuf message"),
            (vec![large], Code::ResourceExhausted, &larger),
            (vec![framed(&range("", ""))], Code::InvalidArgument, "etcdserver: key is not provided"),
        ];
        for (pieces, code, text) in cases {
            let told = ask(&send, request(RANGE), pieces).await.unwrap_err();
            assert_eq!(told.code(), code, "{told:?}");
            assert!(told.message().starts_with(text), "{told:?}");
        }
        assert!(ask(&send, request(RANGE), vec![framed(&range("key", ""))]).await.is_ok());
    });
    member.stop();
}

#[test]
fn metadata_are_looked_at_first() {
    let mut member = TestMember::start(&[]);
    run(async {
        let send = connect(&member).await;
        let mut malformed = request(RANGE);
        malformed.headers_mut().insert("grpc-timeout", "soon".parse().unwrap());
        let told = ask(&send, malformed, vec![framed(&range("k", ""))]).await.unwrap_err();
        assert_eq!(told.code(), Code::Internal);
        let mut versioned = request(RANGE);
        versioned.headers_mut().insert("client-api-version", http::HeaderValue::from_bytes(b"\xff").unwrap());
        let told = ask(&send, versioned, vec![framed(&range("k", ""))]).await.unwrap_err();
        assert_eq!(told.message(), "etcdserver: invalid client api version");
        let mut led = request(PUT);
        led.headers_mut().insert("hasleader", "true".parse().unwrap());
        assert!(ask(&send, led, vec![framed(&put("k", "v"))]).await.is_ok());
    });
    member.stop();
}

#[test]
fn a_message_that_does_not_end_meets_its_deadline() {
    let mut member = TestMember::start(&[]);
    run(async {
        let send = connect(&member).await;
        let mut late = request(PUT);
        late.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());
        let (response, mut stream) = send.clone().send_request(late, false).unwrap();
        stream.send_data(framed(&put("k", "v"))[..7].to_vec().into(), false).unwrap();
        let head = soon(response).await.unwrap();
        assert_eq!(status(head.headers()).code(), Code::DeadlineExceeded);
        assert!(ask(&send, request(RANGE), vec![framed(&range("k", ""))]).await.is_ok());
    });
    member.stop();
}

#[test]
fn puts_whose_clients_are_gone_are_written_and_leave_their_places() {
    let mut member = TestMember::start(&["--requests-in-flight-max=64"]);
    run(async {
        let send = connect(&member).await;
        for number in 0..1_000 {
            let mut send = send.clone().ready().await.unwrap();
            let (response, mut stream) = send.send_request(request(PUT), false).unwrap();
            stream.send_data(framed(&put(&format!("k{number}"), "v")).into(), true).unwrap();
            if number % 3 == 0 {
                stream.send_reset(h2::Reason::CANCEL);
            } else {
                drop(soon(response).await);
            }
        }
        let mut client = member.client().await;
        client.put("after", "v").await;
        let count = pb::RangeRequest { count_only: true, ..range("k", "l") };
        assert!(client.range(count).await.count >= 666);
    });
    member.stop();
}

#[test]
fn compressed_requests_go_the_long_way() {
    let mut member = TestMember::start(&[]);
    run(async {
        let Client { channel, .. } = member.client().await;
        let mut kv = KvClient::new(channel).send_compressed(CompressionEncoding::Gzip);
        let value = "v".repeat(10_000);
        kv.put(put("key", &value)).await.unwrap();
        let kvs = kv.range(range("key", "")).await.unwrap().into_inner().kvs;
        assert_eq!(kvs[0].value, bytes(&value));
    });
    member.stop();
}

#[test]
fn a_client_that_answers_no_pings_is_closed_and_one_that_does_may_be_idle() {
    let mut member = TestMember::start(&["--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=1s"]);
    run(async {
        let idle = connect(&member).await;
        let address = member.endpoint.trim_start_matches("http://");
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut told = Vec::new();
        // whether it ends with a reset or not does not matter
        let _ = soon(silent.read_to_end(&mut told)).await;
        let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0];
        assert!(told.windows(ping.len()).any(|bytes| bytes == ping), "{told:?}");
        // by now the other has been asked, too
        assert!(ask(&idle, request(RANGE), vec![framed(&range("k", ""))]).await.is_ok());
    });
    member.stop();
}

#[test]
fn a_stream_meets_its_deadline_while_its_client_takes_nothing() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        // more than one part
        for number in 0..40 {
            client.put(&format!("k{number:02}"), &"v".repeat(100_000)).await;
        }
        let mut send = connect(&member).await;
        let mut request = request("/etcdserverpb.KV/RangeStream");
        request.headers_mut().insert("grpc-timeout", "300m".parse().unwrap());
        let (response, mut stream) = send.send_request(request, false).unwrap();
        stream.send_data(framed(&range("k", "l")).into(), true).unwrap();
        let mut body = soon(response).await.unwrap().into_body();
        // what comes is kept, and no window opened again
        let error = loop {
            match soon(body.data()).await.expect("it does not end well") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
        let handled = "grpc_server_handled_total{grpc_code=\"DeadlineExceeded\",grpc_method=\"RangeStream\",\
                       grpc_service=\"etcdserverpb.KV\",grpc_type=\"server_stream\"}";
        assert_eq!(metric(&member.endpoint, handled), 1);
    });
    member.stop();
}

#[test]
fn other_http_is_answered_on_the_same_connection() {
    let mut member = TestMember::start(&[]);
    run(async {
        let send = connect(&member).await;
        let cases = [("GET", "/version", 200), ("HEAD", "/version", 405), ("GET", "/nowhere", 404)];
        for (method, path, code) in cases {
            let mut send = send.clone().ready().await.unwrap();
            let request =
                Request::builder().method(method).uri(format!("http://member{path}")).body(()).unwrap();
            let (response, _) = send.send_request(request, true).unwrap();
            let (head, mut body) = soon(response).await.unwrap().into_parts();
            assert_eq!(head.status.as_u16(), code, "{method} {path}");
            let mut text = Vec::new();
            while let Some(part) = soon(body.data()).await {
                text.extend_from_slice(&part.unwrap());
            }
            let said = String::from_utf8(text).unwrap();
            assert_eq!(
                said.contains("etcdserver"),
                (method, code) == ("GET", 200),
                "{method} {path}: {said}"
            );
        }
        assert!(ask(&send, request(RANGE), vec![framed(&range("k", ""))]).await.is_ok());
    });
    member.stop();
}

//! A server of one's own with certificates of one's own, and who gets through to it.

use super::*;
use crate::load::connect::Network;
use crate::load::{Client, LoadOptions};
use crate::null;
use coffer_server::proto::etcdserverpb as pb;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::net::TcpListener;
use std::path::PathBuf;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::WebPkiClientVerifier;

/// An authority, a certificate for a server on this machine and one for a client, as files.
struct Papers(tempfile::TempDir);

impl Papers {
    fn new() -> Papers {
        let papers = Papers(tempfile::tempdir().unwrap());
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        papers.write("ca.pem", &authority.pem());
        for (name, hosts) in
            [("server", vec!["127.0.0.1".to_owned(), "localhost".to_owned()]), ("client", vec![])]
        {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(hosts).unwrap().signed_by(&key, &authority).unwrap();
            papers.write(&format!("{name}.pem"), &certificate.pem());
            papers.write(&format!("{name}.key"), &key.serialize_pem());
        }
        papers
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, pem: &str) {
        std::fs::write(self.path(name), pem).unwrap();
    }

    /// Serves as long as this process lives; its port.
    fn serve(&self, asks_clients: bool) -> u16 {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks_clients {
            let mut roots = RootCertStore::empty();
            certificates(&self.path("ca.pem")).unwrap().into_iter().for_each(|root| roots.add(root).unwrap());
            let provider = Arc::new(ring::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).unwrap();
        let chain = certificates(&self.path("server.pem")).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![HTTP2.to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || serve_on(listener, config));
        port
    }
}

fn serve_on(listener: TcpListener, config: ServerConfig) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // a client that turns away is what some tests want
                if let Ok(stream) = acceptor.accept(stream).await {
                    drop(null::speak_h2(stream).await);
                }
            });
        }
    });
}

/// Whether a range over each client gets its answer; the error of the first that does not.
fn asks(port: u16, tls: &TlsOptions) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for client in [Client::H2, Client::Tonic] {
        let options = LoadOptions {
            endpoints: vec![format!("https://127.0.0.1:{port}"), format!("https://localhost:{port}")],
            connections: 2,
            client,
            tls: tls.clone(),
            ..LoadOptions::default()
        };
        let asked = LocalSet::new().block_on(&runtime, async {
            for mut wire in Network::open(&options).await?.wires {
                let found = wire.range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await?;
                assert_eq!(found.kvs, 1);
            }
            Ok::<_, Failed>(())
        });
        asked.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn trusting(cacert: Option<PathBuf>) -> TlsOptions {
    TlsOptions { cacert, cert: None, key: None, insecure_skip_tls_verify: false }
}

#[test]
fn both_clients_speak_tls_with_a_server_they_have_reason_to_trust() {
    let (papers, strangers) = (Papers::new(), Papers::new());
    let port = papers.serve(false);
    assert_eq!(asks(port, &trusting(Some(papers.path("ca.pem")))), Ok(()));
    let error = asks(port, &trusting(Some(strangers.path("ca.pem")))).unwrap_err();
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(asks(port, &TlsOptions { insecure_skip_tls_verify: true, ..trusting(None) }), Ok(()));
}

#[test]
fn a_server_that_asks_for_a_certificate_gets_the_one_named() {
    let papers = Papers::new();
    let port = papers.serve(true);
    let trusting = trusting(Some(papers.path("ca.pem")));
    assert!(asks(port, &trusting).is_err(), "a client without a certificate got through");
    let named = TlsOptions {
        cert: Some(papers.path("client.pem")),
        key: Some(papers.path("client.key")),
        ..trusting
    };
    assert_eq!(asks(port, &named), Ok(()));
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    let papers = Papers::new();
    let error = connector(&trusting(Some(papers.path("server.key")))).map(drop).unwrap_err().to_string();
    assert!(error.contains("server.key"), "{error}");
    let error = connector(&trusting(Some(papers.path("missing.pem")))).map(drop).unwrap_err().to_string();
    assert!(error.contains("missing.pem"), "{error}");
}

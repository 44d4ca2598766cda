// One gRPC call on bare HTTP/2, for headers that a gRPC client refuses to send.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/metadata"
)

const theStream = 1

// callBare sends one message and gives the headers and trailers of the answer, the latter over the former.
func callBare(address, path string, meta metadata.MD, message []byte) (map[string]string, error) {
	conn, err := net.DialTimeout("tcp", address, callWithin)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(callWithin)); err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return nil, err
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := framer.WriteSettings(); err != nil {
		return nil, err
	}
	if err := writeCall(framer, address, path, meta, message); err != nil {
		return nil, err
	}
	return readAnswer(framer)
}

func writeCall(framer *http2.Framer, address, path string, meta metadata.MD, message []byte) error {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	headers := []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
		{Name: ":path", Value: path}, {Name: ":authority", Value: address},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}
	for name, values := range meta {
		for _, value := range values {
			headers = append(headers, hpack.HeaderField{Name: name, Value: value})
		}
	}
	for _, header := range headers {
		if err := encoder.WriteField(header); err != nil {
			return err
		}
	}
	call := http2.HeadersFrameParam{StreamID: theStream, BlockFragment: block.Bytes(), EndHeaders: true}
	if err := framer.WriteHeaders(call); err != nil {
		return err
	}
	framed := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	return framer.WriteData(theStream, true, framed)
}

func readAnswer(framer *http2.Framer) (map[string]string, error) {
	answer := map[string]string{}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return nil, err
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				if err := framer.WriteSettingsAck(); err != nil {
					return nil, err
				}
			}
		case *http2.MetaHeadersFrame:
			for _, field := range frame.Fields {
				answer[field.Name] = field.Value
			}
			if frame.StreamEnded() {
				return answer, nil
			}
		case *http2.RSTStreamFrame:
			return nil, fmt.Errorf("the stream was reset: %s", frame.ErrCode)
		case *http2.GoAwayFrame:
			return nil, fmt.Errorf("the server went away: %s", frame.ErrCode)
		}
	}
}

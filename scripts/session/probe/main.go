// Probe plays files of cases against one etcd endpoint over plain gRPC and prints what came back.
//
//	probe run ADDRESS FILE...   the transcript, one block per case, blocks apart by an empty line
//	probe ready ADDRESS PID     returns once the endpoint answers a linearizable read, or its process has ended
//	probe ports N               N free ports of 127.0.0.1
//
// What may differ between two correct servers (ids, sizes, terms, hashes, remaining seconds) is masked, and revisions
// are told relative to the store's revision at the start of the case, so that two transcripts are equal exactly when
// the two servers behaved alike. The language of the files is described in script.go.
package main

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const readyWithin = 30 * time.Second

func main() {
	if err := dispatch(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func dispatch(args []string) error {
	switch {
	case len(args) >= 3 && args[0] == "run":
		return run(args[1], args[2:])
	case len(args) == 3 && args[0] == "ready":
		return ready(args[1], args[2])
	case len(args) == 2 && args[0] == "ports":
		return ports(args[1])
	}
	return fmt.Errorf("usage: probe run ADDRESS FILE... | ready ADDRESS PID | ports N")
}

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
}

func run(address string, files []string) error {
	conn, err := dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	player, err := newPlayer(address, conn, out)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := player.playFile(file); err != nil {
			return err
		}
	}
	return nil
}

func ready(address, process string) error {
	pid, err := strconv.Atoi(process)
	if err != nil {
		return err
	}
	conn, err := dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	giveUp := time.Now().Add(readyWithin)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err = pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("ready")})
		cancel()
		if err == nil {
			return nil
		}
		if gone := syscall.Kill(pid, 0); gone != nil {
			return fmt.Errorf("the server at %s has ended", address)
		}
		if time.Now().After(giveUp) {
			return fmt.Errorf("%s does not answer: %w", address, err)
		}
		conn.ResetConnectBackoff()
		time.Sleep(20 * time.Millisecond)
	}
}

// ports holds all its listeners open until the last is found, so that the answers differ.
func ports(count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer listener.Close()
		fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	}
	return nil
}

// The watch streams of a case. A reader of its own takes responses off each stream, so that waiting can be bounded.
package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
)

type watchStream struct {
	stream  pb.Watch_WatchClient
	replies chan watchReply // closed behind the reply that carries the stream's end
	// Once a reply was missed, the case has gone wrong, and the next ones are not waited for as long.
	missed bool
}

type watchReply struct {
	response *pb.WatchResponse
	err      error
}

func (p *player) watch(verb, name, rest string) error {
	w, err := p.watchStream(name)
	if err != nil {
		p.showError(err)
		return nil
	}
	switch verb {
	case "send":
		request := &pb.WatchRequest{}
		if err := prototext.Unmarshal([]byte(rest), request); err != nil {
			return err
		}
		return w.stream.Send(request)
	case "recv":
		n, err := countOr(rest, 1)
		for range n {
			p.showReply(w.await())
		}
		return err
	case "events":
		n, err := countOr(rest, 1)
		p.showEvents(w, n)
		return err
	case "progress":
		p.showProgress(w)
		return nil
	case "quiet":
		ms, err := countOr(rest, int(quietFor/time.Millisecond))
		if reply := w.next(time.Duration(ms) * time.Millisecond); reply != nil {
			p.showReply(reply)
		}
		return err
	case "half":
		return w.stream.CloseSend()
	}
	return fmt.Errorf("%q is nothing a watch can do", verb)
}

func countOr(text string, otherwise int) (int, error) {
	if text == "" {
		return otherwise, nil
	}
	return strconv.Atoi(text)
}

func (p *player) watchStream(name string) (*watchStream, error) {
	if w := p.watches[name]; w != nil {
		return w, nil
	}
	ctx, options := p.outgoing(p.caseCtx)
	stream, err := pb.NewWatchClient(p.conn).Watch(ctx, options...)
	if err != nil {
		return nil, err
	}
	w := &watchStream{stream: stream, replies: make(chan watchReply, 10000)}
	p.watches[name] = w
	go func() {
		for {
			response, err := stream.Recv()
			w.replies <- watchReply{response, err}
			if err != nil {
				close(w.replies)
				return
			}
		}
	}()
	return w, nil
}

// await is for a reply that must come, next for one that may.
func (w *watchStream) await() *watchReply {
	within := replyWithin
	if w.missed {
		within = quietFor
	}
	reply := w.next(within)
	w.missed = w.missed || reply == nil
	return reply
}

func (w *watchStream) next(within time.Duration) *watchReply {
	select {
	case reply, open := <-w.replies:
		if !open {
			reply.err = io.EOF
		}
		return &reply
	case <-time.After(within):
		return nil
	}
}

func (p *player) showReply(reply *watchReply) {
	switch {
	case reply == nil:
		fmt.Fprintln(p.out, "  nothing came")
	case reply.err == io.EOF:
		fmt.Fprintln(p.out, "  the stream ended")
	case reply.err != nil:
		p.showError(reply.err)
	default:
		p.show(reply.response)
	}
}

// showEvents tells each event apart from the response that carried it. Anything but a plain response ends the wait.
func (p *player) showEvents(w *watchStream, n int) {
	for n > 0 {
		reply := w.await()
		if reply == nil || reply.err != nil || len(reply.response.Events) == 0 {
			p.showReply(reply)
			return
		}
		for _, event := range reply.response.Events {
			fmt.Fprintf(p.out, "  watch_id:%d %s\n", reply.response.WatchId, p.mask.format(event))
		}
		n -= len(reply.response.Events)
	}
	if n < 0 {
		fmt.Fprintf(p.out, "  %d events too many\n", -n)
	}
}

func (p *player) showProgress(w *watchStream) {
	ask := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	for giveUp := time.Now().Add(replyWithin); time.Now().Before(giveUp); {
		if err := w.stream.Send(ask); err != nil {
			p.showError(err)
			return
		}
		if reply := w.next(progressEvery); reply != nil {
			p.showReply(reply)
			return
		}
	}
	p.showReply(nil)
}

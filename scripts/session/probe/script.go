// The language of the case files, line by line:
//
//	# text                  a comment
//	case NAME               a new case; before it all keys, leases, alarms and streams of the last one are cleared away
//	absolute                this case's revisions are shown as they are
//	METHOD MESSAGE          a unary call by the rpc's name, its request in protobuf's text form
//	RangeStream MESSAGE     the whole stream told as one answer (where its chunks end is the server's choice)
//	meta KEY=VALUE          metadata for the next call or new stream; VALUE may hold \xNN
//	gzip                    the next call is compressed
//	raw PATH HEX            a call of any path with any bytes, shown with its code and words
//	rawcode PATH HEX        the same, only the code (the words are the protobuf library's own)
//	h2 PATH HEX             the same on bare HTTP/2, where metadata may hold bytes that a gRPC client refuses
//	send W MESSAGE          a WatchRequest on stream W, opened by its first use
//	recv W [N]              the next N responses of W, each as it came
//	events W N              responses of W until N events came, told event by event (their grouping is not)
//	progress W              asks for progress until it is told, as a client does
//	quiet W [MS]            nothing comes for so long
//	half W                  ends the sending side of W
//	keepalive MESSAGE       a LeaseKeepAliveRequest on the case's stream, and its answer
//	fill KEY BYTES          puts KEY0, KEY1, ... of so many bytes until that is refused, and shows the refusal; how many
//	                        there were is taken out of the revisions that follow
//	sleep MS
//
// In messages: $r is the store's revision when the case began, $r+N and $r-N are counted from it; $id is the id of the
// last lease granted; $x(N) is N letters; $each(N){TEXT} is TEXT N times, with # standing for 0, 1, 2 and so on.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	_ "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

const (
	callWithin  = 15 * time.Second
	replyWithin = 10 * time.Second
	quietFor    = 250 * time.Millisecond
	// A progress request is answered only once all watchers have caught up; a client asks again, and so do we.
	progressEvery = 50 * time.Millisecond
	fillAtMost    = 1000
)

type player struct {
	address string
	conn    *grpc.ClientConn
	out     io.Writer
	methods map[string]protoreflect.MethodDescriptor
	mask    mask

	base     int64
	leaseID  int64
	meta     metadata.MD
	options  []grpc.CallOption
	watches  map[string]*watchStream
	alive    pb.Lease_LeaseKeepAliveClient
	endCase  context.CancelFunc
	caseCtx  context.Context
	anyCases bool
}

func newPlayer(address string, conn *grpc.ClientConn, out io.Writer) (*player, error) {
	p := &player{address: address, conn: conn, out: out, methods: map[string]protoreflect.MethodDescriptor{}, endCase: func() {}}
	for _, file := range []protoreflect.FullName{"etcdserverpb", "grpc.health.v1"} {
		protoregistry.GlobalFiles.RangeFilesByPackage(file, func(fd protoreflect.FileDescriptor) bool {
			for i := range fd.Services().Len() {
				methods := fd.Services().Get(i).Methods()
				for j := range methods.Len() {
					p.methods[string(methods.Get(j).Name())] = methods.Get(j)
				}
			}
			return true
		})
	}
	// etcd's Watch and the health service's are told apart by never calling either by name.
	delete(p.methods, "Watch")
	ctx, cancel := context.WithTimeout(context.Background(), callWithin)
	defer cancel()
	reply, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("\x00")})
	if err != nil {
		return nil, err
	}
	p.mask = mask{cluster: reply.Header.ClusterId, member: reply.Header.MemberId}
	return p, nil
}

func (p *player) playFile(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := p.playLine(line); err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	p.endCase()
	return lines.Err()
}

func (p *player) playLine(line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	if verb == "case" {
		return p.startCase(rest)
	}
	if p.caseCtx == nil {
		return fmt.Errorf("%q stands before the first case", verb)
	}
	fmt.Fprintln(p.out, ">", line)
	rest = p.expand(rest)
	switch verb {
	case "absolute":
		p.mask.base = -1
		return nil
	case "meta":
		return p.addMeta(rest)
	case "gzip":
		p.options = append(p.options, grpc.UseCompressor(gzip.Name))
		return nil
	case "raw", "rawcode":
		return p.raw(rest, verb == "raw")
	case "h2":
		return p.bare(rest)
	case "send", "recv", "events", "progress", "quiet", "half":
		name, rest, _ := strings.Cut(rest, " ")
		return p.watch(verb, name, strings.TrimSpace(rest))
	case "keepalive":
		return p.keepAlive(rest)
	case "fill":
		return p.fill(rest)
	case "sleep":
		ms, err := strconv.Atoi(rest)
		time.Sleep(time.Duration(ms) * time.Millisecond)
		return err
	case "RangeStream":
		return p.rangeStream(rest)
	}
	return p.unary(verb, rest)
}

func (p *player) startCase(name string) error {
	p.endCase()
	p.caseCtx, p.endCase = context.WithCancel(context.Background())
	p.watches, p.alive, p.meta, p.options, p.leaseID = map[string]*watchStream{}, nil, nil, nil, 0
	if p.anyCases {
		fmt.Fprintln(p.out)
	}
	p.anyCases = true
	fmt.Fprintln(p.out, "case", name)
	base, err := p.clear()
	if err != nil {
		fmt.Fprintln(p.out, "  cannot clear the store:", shortError(err))
	}
	p.base = base
	p.mask = mask{cluster: p.mask.cluster, member: p.mask.member, base: base}
	return nil
}

// clear leaves an empty store and tells its revision.
func (p *player) clear() (int64, error) {
	ctx, cancel := context.WithTimeout(p.caseCtx, callWithin)
	defer cancel()
	leases := pb.NewLeaseClient(p.conn)
	granted, err := leases.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	if err != nil {
		return 0, err
	}
	for _, lease := range granted.Leases {
		// One that expires in between is as good as revoked.
		_, _ = leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease.ID})
	}
	maintenance := pb.NewMaintenanceClient(p.conn)
	raised, err := maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
	if err != nil {
		return 0, err
	}
	for _, alarm := range raised.Alarms {
		lower := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: alarm.MemberID, Alarm: alarm.Alarm}
		if _, err := maintenance.Alarm(ctx, lower); err != nil {
			return 0, err
		}
	}
	emptied, err := pb.NewKVClient(p.conn).DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		return 0, err
	}
	return emptied.Header.Revision, nil
}

var (
	eachForm     = regexp.MustCompile(`\$each\((\d+)\)\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}`)
	lettersForm  = regexp.MustCompile(`\$x\((\d+)\)`)
	revisionForm = regexp.MustCompile(`\$r([+-]\d+)?`)
)

func (p *player) expand(text string) string {
	text = eachForm.ReplaceAllStringFunc(text, func(form string) string {
		parts := eachForm.FindStringSubmatch(form)
		n, _ := strconv.Atoi(parts[1])
		var all strings.Builder
		for i := range n {
			all.WriteString(strings.ReplaceAll(parts[2], "#", strconv.Itoa(i)))
			all.WriteByte(' ')
		}
		return all.String()
	})
	text = lettersForm.ReplaceAllStringFunc(text, func(form string) string {
		n, _ := strconv.Atoi(lettersForm.FindStringSubmatch(form)[1])
		return strings.Repeat("x", n)
	})
	text = revisionForm.ReplaceAllStringFunc(text, func(form string) string {
		offset, _ := strconv.ParseInt(revisionForm.FindStringSubmatch(form)[1], 10, 64)
		return strconv.FormatInt(p.base+offset, 10)
	})
	return strings.ReplaceAll(text, "$id", strconv.FormatInt(p.leaseID, 10))
}

func (p *player) addMeta(text string) error {
	key, value, _ := strings.Cut(text, "=")
	value, err := strconv.Unquote(`"` + value + `"`)
	if err != nil {
		return err
	}
	p.meta = metadata.Join(p.meta, metadata.Pairs(key, value))
	return nil
}

// outgoing uses up what meta and gzip have set aside.
func (p *player) outgoing(ctx context.Context) (context.Context, []grpc.CallOption) {
	options := p.options
	if p.meta != nil {
		ctx = metadata.NewOutgoingContext(ctx, p.meta)
	}
	p.meta, p.options = nil, nil
	return ctx, options
}

func (p *player) unary(name, text string) error {
	method := p.methods[name]
	if method == nil || method.IsStreamingClient() || method.IsStreamingServer() {
		return fmt.Errorf("no unary rpc is called %q", name)
	}
	request, err := newMessage(method.Input())
	if err != nil {
		return err
	}
	if err := prototext.Unmarshal([]byte(text), request); err != nil {
		return err
	}
	reply, err := newMessage(method.Output())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.caseCtx, callWithin)
	defer cancel()
	ctx, options := p.outgoing(ctx)
	path := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	if err := p.conn.Invoke(ctx, path, request, reply, options...); err != nil {
		p.showError(err)
		return nil
	}
	asked, _ := request.(*pb.LeaseGrantRequest)
	if granted, ok := reply.(*pb.LeaseGrantResponse); ok {
		p.leaseID = granted.ID
		if asked.ID == 0 && granted.ID > 0 {
			p.mask.givenLease = granted.ID
		}
	}
	p.show(reply)
	return nil
}

func newMessage(descriptor protoreflect.MessageDescriptor) (proto.Message, error) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(descriptor.FullName())
	if err != nil {
		return nil, err
	}
	return kind.New().Interface(), nil
}

func (p *player) show(message proto.Message) { fmt.Fprintln(p.out, "  "+p.mask.format(message)) }

func (p *player) showError(err error) { fmt.Fprintln(p.out, "  "+shortError(err)) }

func shortError(err error) string {
	failure := status.Convert(err)
	return fmt.Sprintf("! %s %q", failure.Code(), failure.Message())
}

// rangeStream folds the chunks into one response; a header, count or more before the last chunk would be told.
func (p *player) rangeStream(text string) error {
	request := &pb.RangeRequest{}
	if err := prototext.Unmarshal([]byte(text), request); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.caseCtx, callWithin)
	defer cancel()
	ctx, options := p.outgoing(ctx)
	stream, err := pb.NewKVClient(p.conn).RangeStream(ctx, request, options...)
	if err != nil {
		p.showError(err)
		return nil
	}
	whole := &pb.RangeResponse{}
	for {
		chunk, err := stream.Recv()
		if err == io.EOF {
			p.show(whole)
			return nil
		}
		if err != nil {
			p.showError(err)
			return nil
		}
		if whole.Header != nil || whole.Count != 0 || whole.More {
			fmt.Fprintln(p.out, "  a chunk after the one with the header")
		}
		proto.Merge(whole, chunk.RangeResponse)
	}
}

// rawCodec passes bytes through as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }
func (rawCodec) Name() string                       { return "proto" }

func (p *player) raw(text string, words bool) error {
	path, digits, _ := strings.Cut(text, " ")
	request, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.caseCtx, callWithin)
	defer cancel()
	ctx, options := p.outgoing(ctx)
	var reply []byte
	err = p.conn.Invoke(ctx, path, &request, &reply, append(options, grpc.ForceCodec(rawCodec{}))...)
	switch {
	case err == nil:
		fmt.Fprintln(p.out, "  answered")
	case words:
		p.showError(err)
	default:
		fmt.Fprintln(p.out, "  !", status.Code(err))
	}
	return nil
}

func (p *player) bare(text string) error {
	path, digits, _ := strings.Cut(text, " ")
	message, err := hex.DecodeString(digits)
	if err != nil {
		return err
	}
	answer, err := callBare(p.address, path, p.meta, message)
	p.meta = nil
	if err != nil {
		fmt.Fprintln(p.out, "  !", err)
		return nil
	}
	// which bytes of a message are percent-encoded is each server's choice
	told, err := url.PathUnescape(answer["grpc-message"])
	if err != nil {
		told = answer["grpc-message"]
	}
	fmt.Fprintf(p.out, "  http %s grpc-status %s %q\n", answer[":status"], answer["grpc-status"], told)
	return nil
}

func (p *player) keepAlive(text string) error {
	request := &pb.LeaseKeepAliveRequest{}
	if err := prototext.Unmarshal([]byte(text), request); err != nil {
		return err
	}
	if p.alive == nil {
		ctx, options := p.outgoing(p.caseCtx)
		stream, err := pb.NewLeaseClient(p.conn).LeaseKeepAlive(ctx, options...)
		if err != nil {
			p.showError(err)
			return nil
		}
		p.alive = stream
	}
	if err := p.alive.Send(request); err != nil && err != io.EOF {
		p.showError(err)
		return nil
	}
	reply, err := p.alive.Recv()
	if err != nil {
		p.showError(err)
		return nil
	}
	p.show(reply)
	return nil
}

func (p *player) fill(text string) error {
	var key string
	var size int
	if _, err := fmt.Sscanf(text, "%s %d", &key, &size); err != nil {
		return err
	}
	kv := pb.NewKVClient(p.conn)
	before, err := kv.Range(p.caseCtx, &pb.RangeRequest{Key: []byte(key)})
	if err != nil {
		return err
	}
	var refusal error
	for i := 0; refusal == nil && i < fillAtMost; i++ {
		request := &pb.PutRequest{Key: fmt.Appendf(nil, "%s%d", key, i), Value: make([]byte, size)}
		_, refusal = kv.Put(p.caseCtx, request)
	}
	after, err := kv.Range(p.caseCtx, &pb.RangeRequest{Key: []byte(key)})
	if err != nil {
		return err
	}
	// A put may be written and refused all the same, so the store is asked how many there were.
	p.mask.filledFrom = before.Header.Revision
	p.mask.filled = after.Header.Revision - before.Header.Revision
	if refusal == nil {
		fmt.Fprintln(p.out, "  never refused")
		return nil
	}
	p.showError(refusal)
	return nil
}

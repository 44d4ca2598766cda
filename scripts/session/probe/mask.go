// Messages as one line of text, fields by number, with everything hidden that two equal servers may answer differently.
package main

import (
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Longer values are told by their length.
const shownBytes = 64

// Lists that etcd itself tells in no fixed order.
var unordered = map[string]bool{"AlarmResponse.alarms": true, "StatusResponse.errors": true, "LeaseTimeToLiveResponse.keys": true}

type mask struct {
	cluster, member uint64
	base            int64 // revisions are told from here; -1 tells them as they are
	givenLease      int64 // an id the server chose
	// Writes that fill made, left out of later revisions: how many a server takes before it is full is its own affair.
	filledFrom, filled int64
}

func (m *mask) format(message proto.Message) string {
	text := m.fields(message.ProtoReflect())
	if text == "" {
		return "{}"
	}
	return text
}

func (m *mask) fields(message protoreflect.Message) string {
	var present []protoreflect.FieldDescriptor
	message.Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		present = append(present, field)
		return true
	})
	sort.Slice(present, func(i, j int) bool { return present[i].Number() < present[j].Number() })
	var parts []string
	for _, field := range present {
		value := message.Get(field)
		if !field.IsList() {
			parts = append(parts, m.field(message, field, value))
			continue
		}
		var items []string
		for i := range value.List().Len() {
			items = append(items, m.field(message, field, value.List().Get(i)))
		}
		if unordered[string(message.Descriptor().Name()+"."+field.Name())] {
			sort.Strings(items)
		}
		parts = append(parts, items...)
	}
	return strings.Join(parts, " ")
}

func (m *mask) field(of protoreflect.Message, field protoreflect.FieldDescriptor, value protoreflect.Value) string {
	name := string(field.Name())
	if hidden, ok := m.hidden(string(of.Descriptor().Name()), name, value); ok {
		return name + ":" + hidden
	}
	switch field.Kind() {
	case protoreflect.MessageKind:
		return name + ":{" + m.fields(value.Message()) + "}"
	case protoreflect.EnumKind:
		if known := field.Enum().Values().ByNumber(value.Enum()); known != nil {
			return name + ":" + string(known.Name())
		}
		return fmt.Sprintf("%s:%d", name, value.Enum())
	case protoreflect.BytesKind:
		return name + ":" + quote(string(value.Bytes()))
	case protoreflect.StringKind:
		return name + ":" + quote(m.words(value.String()))
	}
	return fmt.Sprintf("%s:%v", name, value.Interface())
}

// hidden has the words for a field that is not shown as it is. Zero fields never come here, so their absence is seen.
func (m *mask) hidden(message, field string, value protoreflect.Value) (string, bool) {
	switch message + "." + field {
	case "ResponseHeader.cluster_id":
		return sameOr("cluster", value.Uint(), m.cluster), true
	case "ResponseHeader.member_id", "AlarmMember.memberID", "Member.ID", "StatusResponse.leader":
		return sameOr("member", value.Uint(), m.member), true
	case "ResponseHeader.raft_term", "StatusResponse.raftTerm":
		return "term", true
	case "StatusResponse.raftIndex", "StatusResponse.raftAppliedIndex":
		return "index", true
	case "StatusResponse.dbSize", "StatusResponse.dbSizeInUse":
		return "size", true
	case "HashResponse.hash", "HashKVResponse.hash":
		return "hash", true
	case "LeaseTimeToLiveResponse.TTL":
		if value.Int() > 0 {
			return "left", true
		}
	case "LeaseGrantResponse.ID", "LeaseStatus.ID", "LeaseKeepAliveResponse.ID", "LeaseTimeToLiveResponse.ID", "KeyValue.lease":
		if value.Int() == m.givenLease {
			return "given", true
		}
	case "ResponseHeader.revision", "KeyValue.create_revision", "KeyValue.mod_revision",
		"HashKVResponse.compact_revision", "HashKVResponse.hash_revision":
		return m.revision(value.Int()), true
	case "WatchResponse.compact_revision":
		return m.revision(value.Int()), true
	}
	return "", false
}

func sameOr(name string, got, expected uint64) string {
	if got == expected {
		return name
	}
	return "another"
}

func (m *mask) revision(revision int64) string {
	if m.filled > 0 && revision > m.filledFrom {
		revision -= m.filled
	}
	switch {
	case m.base < 0 || revision < 0:
		return strconv.FormatInt(revision, 10)
	case revision == m.base:
		return "r"
	}
	return fmt.Sprintf("r%+d", revision-m.base)
}

var (
	// etcd prints alarms with protobuf's text form, whose spaces differ from build to build.
	spacesForm = regexp.MustCompile(` +`)
	portForm   = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	memberForm = regexp.MustCompile(`memberID:\d+`)
)

func (m *mask) words(text string) string {
	text = spacesForm.ReplaceAllString(text, " ")
	text = portForm.ReplaceAllString(text, "127.0.0.1:PORT")
	return memberForm.ReplaceAllString(text, "memberID:member")
}

func quote(text string) string {
	if len(text) > shownBytes {
		return fmt.Sprintf("<%d bytes>", len(text))
	}
	return strconv.Quote(text)
}

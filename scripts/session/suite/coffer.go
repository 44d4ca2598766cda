// Package report: how etcd's robustness tests come by what coffer's members were told. It takes the place of what reads
// etcd's own log there; scripts/peers.sh puts it beside it.
package report

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"go.etcd.io/etcd/tests/v3/framework/e2e"
	"go.etcd.io/etcd/tests/v3/robustness/model"
)

// CofferRequests gives the requests that a member, which is alone, has committed, in their order; none if a checkpoint let go of
// the first of them. COFFER_LOG_ENTRIES names the program that prints a
// log's commands.
func CofferRequests(cluster *e2e.EtcdProcessCluster) ([]model.EtcdRequest, error) {
	member := cluster.Procs[0]
	printed, err := exec.Command(os.Getenv("COFFER_LOG_ENTRIES"), filepath.Join(memberDataDir(member), "wal"), "--all").Output()
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w", err)
	}
	var requests []model.EtcdRequest
	var txn *model.TxnRequest
	expected := uint64(1)
	lines := bufio.NewScanner(bytes.NewReader(printed))
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if txn != nil {
			if words[0] == "end" {
				requests = append(requests, model.EtcdRequest{Type: model.Txn, Txn: txn})
				txn = nil
				continue
			}
			if err := addPart(txn, words); err != nil {
				return nil, fmt.Errorf("%q: %w", lines.Text(), err)
			}
			continue
		}
		index, err := strconv.ParseUint(words[0], 10, 64)
		if err != nil {
			return nil, err
		}
		if expected == 1 && index > 1 {
			return nil, nil
		}
		if index != expected {
			return nil, fmt.Errorf("entry %d follows entry %d", index, expected-1)
		}
		expected++
		switch kind, rest := words[2], words[3:]; kind {
		case "other":
		case "txn":
			txn = &model.TxnRequest{
				Conditions:          []model.EtcdCondition{},
				OperationsOnSuccess: []model.EtcdOperation{},
				OperationsOnFailure: []model.EtcdOperation{},
			}
		case "put", "delete":
			operation, err := operationOf(kind, rest, true)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", lines.Text(), err)
			}
			alone := &model.TxnRequest{OperationsOnSuccess: []model.EtcdOperation{operation}}
			requests = append(requests, model.EtcdRequest{Type: model.Txn, Txn: alone})
		default:
			number, err := strconv.ParseInt(rest[0], 10, 64)
			if err != nil {
				return nil, err
			}
			switch kind {
			case "grant":
				requests = append(requests, model.EtcdRequest{Type: model.LeaseGrant, LeaseGrant: &model.LeaseGrantRequest{LeaseID: number}})
			case "revoke":
				requests = append(requests, model.EtcdRequest{Type: model.LeaseRevoke, LeaseRevoke: &model.LeaseRevokeRequest{LeaseID: number}})
			case "compact":
				requests = append(requests, model.EtcdRequest{Type: model.Compact, Compact: &model.CompactRequest{Revision: number}})
			default:
				return nil, fmt.Errorf("%q: an unknown command", lines.Text())
			}
		}
	}
	if len(requests) == 0 {
		return nil, fmt.Errorf("the log tells nothing")
	}
	return requests, lines.Err()
}

func addPart(txn *model.TxnRequest, words []string) error {
	if words[0] == "if" {
		number, err := strconv.ParseInt(words[4], 10, 64)
		if err != nil || words[3] != "=" {
			return fmt.Errorf("a condition that the model has not: %v", err)
		}
		condition := model.EtcdCondition{Key: text(words[2])}
		switch words[1] {
		case "version":
			condition.ExpectedVersion = number
		case "mod":
			condition.ExpectedRevision = number
		default:
			return fmt.Errorf("a condition that the model has not")
		}
		txn.Conditions = append(txn.Conditions, condition)
		return nil
	}
	operation, err := operationOf(words[1], words[2:], false)
	if err != nil {
		return err
	}
	if words[0] == "then" {
		txn.OperationsOnSuccess = append(txn.OperationsOnSuccess, operation)
	} else {
		txn.OperationsOnFailure = append(txn.OperationsOnFailure, operation)
	}
	return nil
}

// Inside a txn the model knows no lease.
func operationOf(kind string, words []string, lease bool) (operation model.EtcdOperation, err error) {
	switch kind {
	case "put":
		operation.Type = model.PutOperation
		operation.Put = model.PutOptions{Key: text(words[0]), Value: model.ToValueOrHash(text(words[1]))}
		if lease {
			operation.Put.LeaseID, err = strconv.ParseInt(words[2], 10, 64)
		}
	case "delete":
		operation.Type = model.DeleteOperation
		operation.Delete = model.DeleteOptions{Key: text(words[0])}
	case "range":
		operation.Type = model.RangeOperation
		operation.Range = model.RangeOptions{Start: text(words[0]), End: text(words[1])}
		operation.Range.Limit, err = strconv.ParseInt(words[2], 10, 64)
	default:
		err = fmt.Errorf("an operation that the model has not")
	}
	return operation, err
}

func text(word string) string {
	if word == "-" {
		return ""
	}
	bytes, err := hex.DecodeString(word)
	if err != nil {
		panic(err)
	}
	return string(bytes)
}

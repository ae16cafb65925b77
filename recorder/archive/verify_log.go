package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trunktap/trunktap/recorder/audit"
)

// ProofQuery says against what recordings are proved.
type ProofQuery struct {
	Dir  audit.Dir // logs on the node's own disk; zero: those of the archive's log, else none
	Node string    // whose they are
	Ring *audit.Ring
	Pin  string   // a public key that must be among those that signed, name+id+base64; empty: none
	Kept [][]byte // signed checkpoints that were kept elsewhere: the logs must still be what they say
}

// readLogs checks all logs, in the stores and on the disk, and learns from them.
func (v *verification) readLogs(q ProofQuery) error {
	l := &v.led
	l.whole = true
	shipped := v.shipped(q)
	logs, rings, err := audit.Stored(v.ctx, v.a.Store(), "")
	v.stored = logs
	if v.ctx.Err() != nil {
		return v.ctx.Err()
	}
	if errors.Is(err, audit.ErrSignature) {
		v.found.addf("", audit.StorePrefix, FaultSignature, "%v", err)
	} else {
		v.unread = err
	}
	l.rings = v.a.rings(q, rings)
	v.pinned()
	kept := v.kept(q.Kept)
	stored := map[string]*audit.Checker{}
	for _, s := range logs {
		name := s.Name()
		number := l.number(name)
		c, err := s.Check(v.ctx, l.rings, func(e audit.Entry) { l.take(number, e) }, v.logFinding, kept...)
		if err != nil {
			if v.ctx.Err() != nil {
				return err
			}
			v.unread = err
		}
		stored[name] = c
		l.sizes[name] = c.Size()
	}
	if err := v.readOwn(q, stored, shipped, kept); err != nil {
		return err
	}
	for _, p := range kept {
		if size, ok := l.sizes[p.Name()]; !ok || size < p.Size {
			v.found.addf("", audit.StorePrefix+p.Name(), audit.FaultTruncated, "it ends at entry %d; the checkpoint that was kept of %s speaks of %d", size, p.At.Format(time.RFC3339), p.Size)
		}
	}
	return nil
}

// kept opens checkpoints that were kept elsewhere.
func (v *verification) kept(signed [][]byte) (out []audit.Checkpoint) {
	for _, s := range signed {
		p, err := v.led.rings.OpenCheckpoint(s)
		if err != nil {
			v.found.addf("", audit.StorePrefix, FaultSignature, "of a checkpoint that was kept: %v", err)
			continue
		}
		out = append(out, p)
	}
	return out
}

// shipped returns how much of its logs the node has put into the store. It is
// asked before the store is, which may get more meanwhile.
func (v *verification) shipped(q ProofQuery) map[string]int64 {
	out := map[string]int64{}
	dir, node, ok := v.a.own(q)
	if !ok {
		return out
	}
	epochs, _ := dir.Epochs() // told where they are checked
	for _, epoch := range epochs {
		out[node+"/"+epoch] = dir.Epoch(epoch).Shipped()
	}
	return out
}

// rings returns all public keys that are at hand, the node's own first.
func (a *Archive) rings(q ProofQuery, stored audit.Rings) (out audit.Rings) {
	if q.Ring != nil {
		out = append(out, q.Ring)
	}
	if log := a.proof.log.Load(); log != nil {
		out = append(out, log.Identity().Ring())
	}
	for _, r := range stored {
		known := false
		for _, o := range out {
			// The node's own word about its keys goes further than the store's.
			known = known || o.Node == r.Node && o.Keys[0].ID == r.Keys[0].ID && len(o.Keys) >= len(r.Keys)
		}
		if !known {
			out = append(out, r)
		}
	}
	return out
}

// pinned tells when the public key that somebody wrote down is none of those that count.
func (v *verification) pinned() {
	pin := v.query.Proof.Pin
	if pin == "" {
		return
	}
	if !v.led.whole && !v.asked && !v.led.rings.Has(pin) {
		v.ask() // the store may have that of another node
	}
	if !v.led.rings.Has(pin) {
		v.found.addf("", "", FaultSignature, "the public key %s is none of those of the logs", pin)
	}
}

func (v *verification) ask() {
	v.asked = true
	_, stored, _ := audit.Stored(v.ctx, v.a.Store(), "") // what is missing is told of each recording
	v.led.rings = v.a.rings(v.query.Proof, stored)
}

// ringsOf returns the keys that are at hand for something signed. For what another
// node has signed, or this one before its keys were lost, the store is asked once.
func (v *verification) ringsOf(signed []byte) audit.Rings {
	if !v.led.whole && !v.asked && v.led.rings.Of(signed) == nil {
		v.ask()
	}
	return v.led.rings
}

// own returns the logs on the node's own disk.
func (a *Archive) own(q ProofQuery) (dir audit.Dir, node string, ok bool) {
	if log := a.proof.log.Load(); log != nil {
		return log.Dir(), log.Node(), true
	}
	return q.Dir, q.Node, q.Node != ""
}

// readOwn checks the logs on the node's own disk, and that the store agrees.
func (v *verification) readOwn(q ProofQuery, stored map[string]*audit.Checker, shipped map[string]int64, kept []audit.Checkpoint) error {
	dir, node, ok := v.a.own(q)
	if !ok {
		return nil
	}
	epochs, err := dir.Epochs()
	if err != nil {
		v.found.addf("", "", FaultUnreadable, "%v", err)
		return nil
	}
	for _, epoch := range epochs {
		e, name := dir.Epoch(epoch), node+"/"+epoch
		number := v.led.number(name)
		c, err := e.Check(v.ctx, node, v.led.rings, func(en audit.Entry) {
			if en.N >= v.led.sizes[name] {
				v.led.take(number, en)
			}
		}, v.logFinding, kept...)
		if err != nil {
			if v.ctx.Err() != nil {
				return err
			}
			v.found.addf("", audit.StorePrefix+name, FaultUnreadable, "%v", err)
		}
		has := int64(0)
		if stored[name] != nil {
			has = stored[name].Size()
		}
		if had := shipped[name]; had > has && v.unread == nil {
			v.found.addf("", audit.StorePrefix+name, FaultMissing, "the store has %d entries of it; the node has put %d there", has, had)
		}
		if s := stored[name]; s != nil && s.Points > 0 {
			if err := e.Agrees(s.At); err != nil {
				v.found.addf("", audit.StorePrefix+name, audit.FaultFork, "%v", err)
			}
		}
		v.led.sizes[name] = max(v.led.sizes[name], c.Size())
	}
	return nil
}

// logFinding takes what is wrong with a log.
func (v *verification) logFinding(f audit.Finding) {
	out := Finding{File: audit.StorePrefix + f.Log, Fault: f.Fault, Detail: fmt.Sprintf("entry %d: %s", f.Entry, f.Detail)}
	if f.Note {
		v.notes.add(out)
	} else {
		v.found.add(out)
	}
}

// missing names recordings that were published and are nowhere, without a word
// about their deletion.
func (v *verification) missing(q VerifyQuery) error {
	if len(v.down) > 0 || v.led.want(q.near) == 0 {
		return nil
	}
	if err := v.deletedSince(); err != nil {
		return err
	}
	// Their ids were not kept: they are read again.
	return v.eachLog(func(log string) func(audit.Entry) {
		number := v.led.number(log)
		return func(e audit.Entry) {
			if v.led.wants(number, e) && !q.skips(e.Recording, "") && q.began(e) && !v.beingTaken(e.Recording) && !v.isUnlinked(e.Recording) {
				v.led.mark(e.Recording, markWanted, false)
				tell := v.found.addf
				if q.Trunk != "" {
					tell = v.notes.addf // it may be of any trunk
				}
				none := "and no entry that it was deleted"
				if v.led.has(e.Recording, markBegun) {
					none = "and another that its deletion was begun, long ago; none that it was done"
				}
				tell(e.Recording, "", FaultMissing, "entry %d of log %s says that it was published at %s, %s", e.N, log, e.At.Format(time.RFC3339), none)
			}
		}
	})
}

// deletedSince learns of what was deleted since the logs were read: a look at all
// takes hours, and the daemon deletes meanwhile.
func (v *verification) deletedSince() error {
	if logs, _, err := audit.Stored(v.ctx, v.a.Store(), ""); err == nil { // else as far as they were read
		v.stored = logs
	}
	return v.eachLog(func(log string) func(audit.Entry) {
		number, had := v.led.number(log), v.led.sizes[log]
		return func(e audit.Entry) {
			if e.N >= had && (e.Kind == audit.KindDeleted || e.Kind == audit.KindShredded) {
				v.led.take(number, e)
			}
		}
	})
}

// newest returns the hash of the last link that the node's own disk has of a
// recording from an entry on, without reading what is of others.
func newest(ctx context.Context, e audit.Epoch, from int64, id string) (hash string, kind audit.Kind, err error) {
	needle := []byte(`"recording":"` + id + `"`)
	err = e.Each(ctx, from, func(line []byte) error {
		if !bytes.Contains(line, needle) {
			return nil
		}
		en, err := audit.ParseEntry(line)
		if err != nil || en.Recording != id {
			return nil //nolint:nilerr // told when the log is checked
		}
		switch {
		case en.Kind == audit.KindTombstone:
		case en.Link != nil:
			hash, kind = en.Link.SHA256, ""
		case (en.Kind == audit.KindDeleted || en.Kind == audit.KindShredded) && en.Done():
			kind = en.Kind
		}
		return nil
	}, func([]byte) error { return nil })
	return hash, kind, err
}

package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// typeNAPTR is 35 (RFC 3403 section 4); the library does not know it.
const typeNAPTR dnsmessage.Type = 35

// udpBytes is the size of the largest reply taken over UDP (RFC 6891 section 6.2.5).
const udpBytes = 4096

var errReply = errors.New("reply that is none to the question")

// pack writes a query.
func pack(id uint16, q question) ([]byte, error) {
	name, err := dnsmessage.NewName(q.name)
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", q.name, err)
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: true})
	b.EnableCompression()
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(dnsmessage.Question{Name: name, Type: q.kind, Class: dnsmessage.ClassINET}); err != nil {
		return nil, err
	}
	if err := b.StartAdditionals(); err != nil {
		return nil, err
	}
	var opt dnsmessage.ResourceHeader
	if err := opt.SetEDNS0(udpBytes, dnsmessage.RCodeSuccess, false); err != nil {
		return nil, err
	}
	if err := b.OPTResource(opt, dnsmessage.OPTResource{}); err != nil {
		return nil, err
	}
	return b.Finish()
}

// parse reads a reply: its records and how long they are good. No records: there is
// nothing of what was asked for.
func parse(reply []byte, id uint16, q question) ([]record, time.Duration, error) {
	var p dnsmessage.Parser
	h, err := p.Start(reply)
	if err != nil {
		return nil, 0, fmt.Errorf("reply: %w", err)
	}
	asked, err := p.Question()
	if err != nil || h.ID != id || !h.Response || asked.Type != q.kind || !strings.EqualFold(asked.Name.String(), q.name) {
		return nil, 0, errReply
	}
	switch h.RCode {
	case dnsmessage.RCodeSuccess:
	case dnsmessage.RCodeNameError:
		return nil, ttlNegative, nil
	default:
		return nil, 0, fmt.Errorf("server says %s", h.RCode)
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, 0, fmt.Errorf("reply: %w", err)
	}
	var out []record
	ttl := ttlMax
	for len(out) < recordsMax {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return nil, 0, fmt.Errorf("reply: %w", err)
		}
		rec, ok, err := readRecord(&p, h, q.kind)
		if err != nil {
			return nil, 0, fmt.Errorf("reply: %w", err)
		}
		if ok {
			out = append(out, rec)
		}
		ttl = min(ttl, time.Duration(h.TTL)*time.Second) // that of an alias counts, too
	}
	if len(out) == 0 {
		ttl = ttlNegative
	}
	return out, ttl, nil
}

func readRecord(p *dnsmessage.Parser, h dnsmessage.ResourceHeader, want dnsmessage.Type) (rec record, ok bool, err error) {
	if h.Type != want || h.Class != dnsmessage.ClassINET {
		return rec, false, p.SkipAnswer()
	}
	switch want {
	case dnsmessage.TypeA:
		r, err := p.AResource()
		return record{addr: netip.AddrFrom4(r.A)}, err == nil, err
	case dnsmessage.TypeAAAA:
		r, err := p.AAAAResource()
		return record{addr: netip.AddrFrom16(r.AAAA).Unmap()}, err == nil, err
	case dnsmessage.TypeSRV:
		r, err := p.SRVResource()
		return record{priority: r.Priority, weight: r.Weight, port: r.Port, name: strings.ToLower(r.Target.String())}, err == nil, err
	case typeNAPTR:
		r, err := p.UnknownResource()
		if err != nil {
			return rec, false, err
		}
		rec, ok = naptrOf(r.Data)
		return rec, ok, nil // one that cannot be read, or leads elsewhere, is passed over
	default:
		return rec, false, p.SkipAnswer()
	}
}

// naptrOf reads a NAPTR record that leads to SRV (flag "s", RFC 3403 section 4.1).
func naptrOf(data []byte) (record, bool) {
	if len(data) < 4 {
		return record{}, false
	}
	rec := record{priority: binary.BigEndian.Uint16(data), weight: binary.BigEndian.Uint16(data[2:])}
	rest := data[4:]
	var text [3]string // flags, service, regexp
	for i := range text {
		if len(rest) == 0 || len(rest) <= int(rest[0]) {
			return record{}, false
		}
		n := int(rest[0])
		text[i], rest = string(rest[1:1+n]), rest[1+n:]
	}
	var labels []string
	for len(rest) > 0 && rest[0] != 0 {
		n := int(rest[0])
		if n > 63 || len(rest) <= n {
			return record{}, false // compressed, which is not allowed here, or cut off
		}
		labels, rest = append(labels, string(rest[1:1+n])), rest[1+n:]
	}
	rec.name = strings.ToLower(strings.Join(labels, ".")) + "."
	rec.service = strings.ToUpper(text[1])
	return rec, len(rest) == 1 && strings.EqualFold(text[0], "s") && text[2] == "" && len(labels) > 0 && len(rec.name) < 256
}

// exchange asks a server over UDP, and over TCP when its answer did not fit.
func exchange(ctx context.Context, server netip.AddrPort, query []byte) ([]byte, error) {
	reply, err := over(ctx, "udp", server, query)
	if err == nil && len(reply) > 2 && reply[2]&0x02 != 0 { // TC
		return over(ctx, "tcp", server, query)
	}
	return reply, err
}

func over(ctx context.Context, network string, server netip.AddrPort, query []byte) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // what was wanted of it is there
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	if network == "udp" {
		return overUDP(conn, query)
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	reply := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err = io.ReadFull(conn, reply)
	return reply, err
}

func overUDP(conn net.Conn, query []byte) ([]byte, error) {
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, udpBytes)
	for { // until the deadline: what bears another id may be forged
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if n >= 12 && buf[0] == query[0] && buf[1] == query[1] {
			return buf[:n], nil
		}
	}
}

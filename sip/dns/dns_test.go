package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"
)

// zone is what a server of a test knows: lines "name TYPE ttl data".
type zone map[string][]string

// server answers from a zone, over UDP and TCP on one port of loopback.
type server struct {
	t       *testing.T
	zone    atomic.Pointer[zone]
	silent  atomic.Bool
	queries atomic.Int64
	addr    netip.AddrPort
}

func newServer(t *testing.T, z zone) *server {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", pc.LocalAddr().String())
	if err != nil {
		t.Skipf("the port is taken for TCP: %v", err)
	}
	s := &server{t: t, addr: netip.MustParseAddrPort(pc.LocalAddr().String())}
	s.zone.Store(&z)
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		buf := make([]byte, 65535)
		for {
			n, src, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if s.silent.Load() {
				continue
			}
			reply := s.answer(buf[:n])
			if len(reply) > 512 { // as an old server
				reply = append(append([]byte(nil), reply[:4]...), make([]byte, 8)...)
				reply[2] |= 0x02
			}
			_, _ = pc.WriteTo(reply, src)
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 65535)
			if n, err := c.Read(buf); err == nil && n > 2 {
				reply := s.answer(buf[2:n])
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = pc.Close()
		_ = l.Close()
		<-done
		<-done
	})
	return s
}

func (s *server) answer(query []byte) []byte {
	s.queries.Add(1)
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		s.t.Error(err)
		return nil
	}
	q, err := p.Question()
	if err != nil {
		s.t.Error(err)
		return nil
	}
	name := strings.ToLower(q.Name.String())
	lines, known := (*s.zone.Load())[name]
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: h.ID, Response: true}, Questions: []dnsmessage.Question{q}}
	if !known {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, line := range lines {
		var kind string
		var ttl uint32
		var data string
		if _, err := fmt.Sscanf(line, "%s %d", &kind, &ttl); err != nil {
			s.t.Error(err)
		}
		data = strings.Join(strings.Fields(line)[2:], " ")
		if body, ok := s.body(kind, data, q.Type); ok {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: ttl}, Body: body})
		}
	}
	out, err := m.Pack()
	if err != nil {
		s.t.Error(err)
	}
	return out
}

func (s *server) body(kind, data string, asked dnsmessage.Type) (dnsmessage.ResourceBody, bool) {
	switch {
	case kind == "A" && asked == dnsmessage.TypeA:
		return &dnsmessage.AResource{A: netip.MustParseAddr(data).As4()}, true
	case kind == "AAAA" && asked == dnsmessage.TypeAAAA:
		return &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(data).As16()}, true
	case kind == "SRV" && asked == dnsmessage.TypeSRV:
		var r dnsmessage.SRVResource
		var target string
		if _, err := fmt.Sscanf(data, "%d %d %d %s", &r.Priority, &r.Weight, &r.Port, &target); err != nil {
			s.t.Error(err)
		}
		r.Target = dnsmessage.MustNewName(target)
		return &r, true
	case kind == "NAPTR" && asked == typeNAPTR:
		var order, preference uint16
		var flags, service, target string
		if _, err := fmt.Sscanf(data, "%d %d %s %s %s", &order, &preference, &flags, &service, &target); err != nil {
			s.t.Error(err)
		}
		return &dnsmessage.UnknownResource{Type: typeNAPTR, Data: naptr(order, preference, flags, service, "", target)}, true
	}
	return nil, false
}

func naptr(order, preference uint16, flags, service, regexp, target string) []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, order), preference)
	for _, s := range append([]string{flags, service, regexp}, strings.Split(strings.TrimSuffix(target, "."), ".")...) {
		b = append(append(b, byte(len(s))), s...)
	}
	return append(b, 0)
}

var ports = map[string]uint16{"udp": 5060, "tcp": 5060, "tls": 5061}

func (r *Resolver) targets(t *testing.T, host, transport string, port uint16) (out []string, err error) {
	t.Helper()
	got, err := r.Targets(context.Background(), host, transport, port,
		func(n string) bool { return ports[n] != 0 }, func(n string) uint16 { return ports[n] })
	for _, g := range got {
		out = append(out, g.Network+" "+g.Addr.String())
	}
	return out, err
}

var example = zone{
	"sip.example.net.": {
		"NAPTR 60 20 1 s SIP+D2U _sip._udp.sip.example.net.", "NAPTR 60 10 2 s SIPS+D2T _sips._tcp.sip.example.net.",
		"NAPTR 60 10 1 s SIP+D2T _sip._tcp.elsewhere.example.net.", "NAPTR 60 1 1 s SIP+D2S _sip._sctp.sip.example.net.",
		"NAPTR 60 1 1 u E2U+sip x.example.net.", "A 60 192.0.2.1",
	},
	"_sip._udp.sip.example.net.":       {"SRV 60 10 0 5070 a.example.net."},
	"_sips._tcp.sip.example.net.":      {"SRV 60 20 0 5071 b.example.net.", "SRV 60 10 0 5072 a.example.net."},
	"_sip._tcp.elsewhere.example.net.": {"SRV 60 1 1 5073 both.example.net."},
	"a.example.net.":                   {"A 60 192.0.2.10"},
	"b.example.net.":                   {"A 60 192.0.2.20", "A 60 192.0.2.21"},
	"both.example.net.":                {"A 60 192.0.2.30", "AAAA 60 2001:db8::30"},
	"_sip._udp.srv.example.net.":       {"SRV 60 1 1 5080 a.example.net."},
	"_sip._tcp.srv.example.net.":       {"SRV 60 1 1 5081 a.example.net."},
	"srv.example.net.":                 {"A 60 192.0.2.99"},
	"_sip._udp.none.example.net.":      {"SRV 60 0 0 0 ."},
	"none.example.net.":                {"A 60 192.0.2.98"},
	"plain.example.net.":               {"AAAA 60 2001:db8::1"},
}

func TestTargets(t *testing.T) {
	s := newServer(t, example)
	r := New(Config{Servers: []netip.AddrPort{s.addr}})
	for _, c := range []struct {
		host, transport string
		port            uint16
		want            []string
	}{
		{"sip.example.net", "", 0, []string{"tcp 192.0.2.30:5073", "tcp [2001:db8::30]:5073", "tls 192.0.2.10:5072", "tls 192.0.2.20:5071", "tls 192.0.2.21:5071", "udp 192.0.2.10:5070"}},
		{"SIP.Example.net.", "udp", 0, []string{"udp 192.0.2.10:5070"}},
		{"sip.example.net", "", 5099, []string{"udp 192.0.2.1:5099"}},
		{"sip.example.net", "tls", 5099, []string{"tls 192.0.2.1:5099"}},
		{"srv.example.net", "", 0, []string{"udp 192.0.2.10:5080", "tcp 192.0.2.10:5081"}},
		{"srv.example.net", "tls", 0, []string{"tls 192.0.2.99:5061"}},
		{"none.example.net", "udp", 0, []string{"udp 192.0.2.98:5060"}},
		{"plain.example.net", "", 0, []string{"udp [2001:db8::1]:5060"}},
	} {
		got, err := r.targets(t, c.host, c.transport, c.port)
		if d := cmp.Diff(c.want, got); d != "" || err != nil {
			t.Errorf("%s %s %d: %v %s", c.host, c.transport, c.port, err, d)
		}
	}
	before := s.queries.Load()
	if _, err := r.targets(t, "sip.example.net", "", 0); err != nil || s.queries.Load() != before {
		t.Errorf("%v, %d questions for what is known", err, s.queries.Load()-before)
	}
	if _, err := r.targets(t, "missing.example.net", "", 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// TestTruncated: an answer that does not fit is asked for over TCP.
func TestTruncated(t *testing.T) {
	z := zone{"many.example.net.": nil}
	for i := range 50 {
		z["many.example.net."] = append(z["many.example.net."], fmt.Sprintf("A 60 192.0.2.%d", i+1))
	}
	r := New(Config{Servers: []netip.AddrPort{newServer(t, z).addr}})
	if got, err := r.targets(t, "many.example.net", "udp", 5060); err != nil || len(got) != 50 {
		t.Errorf("%d targets, %v", len(got), err)
	}
}

// TestStale: while no server answers, what was known is used beyond its time, and for
// a limited one; a server that answers again is heard.
func TestStale(t *testing.T) {
	s := newServer(t, zone{"a.example.net.": {"A 5 192.0.2.1"}})
	now := time.Unix(1e9, 0)
	r := New(Config{
		Servers: []netip.AddrPort{s.addr}, Now: func() time.Time { return now }, StaleMax: time.Hour,
		Exchange: func(ctx context.Context, a netip.AddrPort, q []byte) ([]byte, error) {
			if s.silent.Load() {
				return nil, errors.New("no route to host")
			}
			return exchange(ctx, a, q)
		},
	})
	look := func(want string) {
		t.Helper()
		got, err := r.targets(t, "a.example.net", "udp", 5060)
		if want == "" && err == nil || want != "" && (err != nil || len(got) != 1 || got[0] != want) {
			t.Errorf("%v %v, want %q", got, err, want)
		}
	}
	look("udp 192.0.2.1:5060")
	s.silent.Store(true)
	now = now.Add(30 * time.Minute)
	look("udp 192.0.2.1:5060")
	if r.Counters.Stale.Load() == 0 || r.Counters.Failed.Load() == 0 {
		t.Errorf("%d stale, %d failed", r.Counters.Stale.Load(), r.Counters.Failed.Load())
	}
	s.silent.Store(false)
	s.zone.Store(&zone{"a.example.net.": {"A 5 192.0.2.2"}})
	look("udp 192.0.2.2:5060")
	s.silent.Store(true)
	now = now.Add(2 * time.Hour)
	look("")
}

// TestSecondServer: a server that does not answer is followed by the next one.
func TestSecondServer(t *testing.T) {
	s := newServer(t, example)
	r := New(Config{
		Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), s.addr},
		Exchange: func(ctx context.Context, a netip.AddrPort, q []byte) ([]byte, error) {
			if a != s.addr {
				return nil, context.DeadlineExceeded
			}
			return exchange(ctx, a, q)
		},
	})
	if got, err := r.targets(t, "a.example.net", "udp", 1); err != nil || len(got) != 1 {
		t.Errorf("%v %v", got, err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	r := New(Config{
		EntriesMax: 100, Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")},
		Exchange: func(_ context.Context, _ netip.AddrPort, q []byte) ([]byte, error) {
			q[2] |= 0x80
			q[3] |= 3 // no such name
			return q, nil
		},
	})
	for i := range 1000 {
		if _, err := r.targets(t, fmt.Sprintf("n%d.example.net", i), "udp", 0); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
	if n := r.Len(); n > 100 {
		t.Errorf("%d answers are kept", n)
	}
}

func TestWeights(t *testing.T) {
	r := New(Config{})
	first := map[uint16]int{}
	for range 3000 {
		list := []record{{priority: 1, port: 3}, {priority: 1, weight: 1, port: 1}, {priority: 1, weight: 2, port: 2}}
		r.draw(list)
		first[list[0].port]++
	}
	if first[2] < 1300 || first[2] > 1700 || first[1] < 600 || first[1] > 900 || first[3] < 600 || first[3] > 900 {
		t.Errorf("%v", first)
	}
}

func TestSystemFiles(t *testing.T) {
	dir := t.TempDir()
	resolv, hosts := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "hosts")
	for file, text := range map[string]string{
		resolv: "# x\nnameserver 192.0.2.53\nsearch a\nnameserver 2001:db8::53\nnameserver x\n",
		hosts:  "127.0.0.1 localhost\n192.0.2.7 pbx PBX.example.net # the PBX\nbad pbx\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(SystemServers(resolv)); got != "[192.0.2.53:53 [2001:db8::53]:53]" {
		t.Error(got)
	}
	r := New(Config{Hosts: HostsFile(hosts)})
	if got, err := r.targets(t, "pbx.example.net", "tcp", 5062); err != nil || len(got) != 1 || got[0] != "tcp 192.0.2.7:5062" {
		t.Errorf("%v %v", got, err)
	}
	if HostsFile(filepath.Join(dir, "none"))("a") != nil {
		t.Error("a file that is not there has names")
	}
}

func FuzzParse(f *testing.F) {
	s := &server{}
	z := example
	s.zone.Store(&z)
	for _, q := range []question{{"sip.example.net.", typeNAPTR}, {"_sip._udp.sip.example.net.", dnsmessage.TypeSRV}, {"both.example.net.", dnsmessage.TypeAAAA}} {
		query, err := pack(7, q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s.answer(query), uint16(q.kind), q.name)
	}
	f.Fuzz(func(_ *testing.T, reply []byte, kind uint16, name string) {
		records, _, err := parse(reply, 7, question{name, dnsmessage.Type(kind)})
		if err == nil && len(records) > recordsMax {
			panic("too many records")
		}
	})
}

func FuzzNAPTR(f *testing.F) {
	f.Add(naptr(1, 2, "s", "SIP+D2U", "", "_sip._udp.example.net."))
	f.Fuzz(func(t *testing.T, data []byte) {
		if rec, ok := naptrOf(data); ok && (rec.name == "." || rec.name == "") {
			t.Errorf("%+v", rec)
		}
	})
}

package siptest

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtcp"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/sip/sdp"
)

// Reported sends one stream of a recording session, loses packets of it on purpose, and
// checks what the recorder reports of it (RFC 3550 section 6.4).
type Reported struct {
	mux    bool
	keys   *sdes // nil: plain
	conns  []Conn
	ports  []uint16
	to     [2]netip.AddrPort // RTP, RTCP of the recorder
	stream *mediatest.RTPStream
	done   sync.WaitGroup

	mu      sync.Mutex // guards all following
	lost    []uint16   // numbers that were left out
	sentSR  time.Time
	ntp     uint32 // the middle of the last sender report
	octets  uint32
	reports []Receipt
	faults  []error
	bye     bool
}

// Receipt is one receiver report.
type Receipt struct {
	At    time.Time
	SSRC  uint32
	CNAME string
	Block rtcp.ReceptionReport // zero: the report is empty
}

// NewReported opens the stream's sockets: one with mux, else two of any ports.
func NewReported(listen func(netip.AddrPort) (Conn, error), addr netip.Addr, mux, secure bool) (*Reported, error) {
	r := &Reported{mux: mux}
	if secure {
		r.keys = &sdes{}
	}
	count := 2
	if mux {
		count = 1
	}
	for range count {
		c, err := listen(netip.AddrPortFrom(addr, 0))
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		at, _ := netip.ParseAddrPort(c.LocalAddr().String()) // it is one
		r.conns, r.ports = append(r.conns, c), append(r.ports, at.Port())
	}
	r.stream = &mediatest.RTPStream{SSRC: 0x700000 + uint32(r.ports[0]), Seq: 65500, Timestamp: 1 << 31}
	return r, nil
}

// Line is its part of the description that offers it.
func (r *Reported) Line() string {
	profile := "RTP/AVP"
	if r.keys != nil {
		profile = "RTP/SAVP"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "m=audio %d %s 0\r\na=sendonly\r\n", r.ports[0], profile)
	if r.mux {
		b.WriteString("a=rtcp-mux\r\n")
	} else {
		fmt.Fprintf(&b, "a=rtcp:%d\r\n", r.ports[1])
	}
	if r.keys != nil {
		for _, l := range r.keys.offer(&SRTP{}) {
			b.WriteString(l.String() + "\r\n")
		}
	}
	return b.String()
}

// Answered takes line i of the recorder's answer, and begins to listen.
func (r *Reported) Answered(answer []byte, i int) error {
	d, err := sdp.Parse(answer)
	if err != nil {
		return err
	}
	m := d.Media()[i]
	if m.RTCPMux != r.mux || m.Rejected {
		return fmt.Errorf("line %d is answered with %+v", i, m)
	}
	r.to[0] = netip.AddrPortFrom(m.Addr, m.Port)
	if r.to[1] = r.to[0]; !r.mux {
		r.to[1] = netip.AddrPortFrom(m.Addr, m.Port+1)
	}
	if r.keys != nil {
		value, _ := d.Attribute(i, "crypto")
		line, ok := parseSDES(value)
		if !ok {
			return errNoKeys
		}
		if err := r.keys.answered([]sdesLine{line}); err != nil {
			return err
		}
	}
	r.done.Go(r.listen)
	return nil
}

// Send sends one packet of 20 ms, or leaves it out.
func (r *Reported) Send(lose bool) error {
	r.mu.Lock()
	seq := r.stream.Seq
	if lose {
		r.lost = append(r.lost, seq)
	}
	wire := r.stream.Audio(make([]int16, srcFrame))
	r.octets += srcFrame
	r.mu.Unlock()
	if lose {
		return nil
	}
	return r.transmit(0, wire)
}

// SenderReport sends one; its time is any but the system's.
func (r *Reported) SenderReport() error {
	r.mu.Lock()
	r.ntp = r.ntp*69069 + 0x1234_5671
	sr := &rtcp.SenderReport{SSRC: r.stream.SSRC, NTPTime: uint64(r.ntp) << 16, RTPTime: r.stream.Timestamp, OctetCount: r.octets}
	r.sentSR = time.Now()
	r.mu.Unlock()
	wire, err := rtcp.Marshal([]rtcp.Packet{sr, rtcp.NewCNAMESourceDescription(sr.SSRC, "src@client")})
	if err != nil {
		return err
	}
	return r.transmit(1, wire)
}

func (r *Reported) transmit(kind int, wire []byte) error {
	if r.keys != nil {
		var err error
		if wire, err = r.keys.protect(wire, kind == 1); err != nil {
			return err
		}
	}
	_, err := r.conns[min(kind, len(r.conns)-1)].WriteToUDPAddrPort(wire, r.to[kind])
	return err
}

func (r *Reported) listen() {
	buf := make([]byte, 2048)
	conn := r.conns[len(r.conns)-1]
	for {
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		err = r.take(append([]byte(nil), buf[:n]...), time.Now())
		if err != nil {
			r.mu.Lock()
			r.faults = append(r.faults, err)
			r.mu.Unlock()
		}
	}
}

func (r *Reported) take(wire []byte, now time.Time) error {
	if r.keys != nil {
		var err error
		if wire, err = r.keys.unprotect(wire, true); err != nil {
			return fmt.Errorf("a report that does not decrypt: %w", err)
		}
	}
	list, err := rtcp.Unmarshal(wire)
	if err != nil || len(list) < 2 {
		return fmt.Errorf("not a compound packet of RTCP: %v: %w", list, err)
	}
	rr, ok := list[0].(*rtcp.ReceiverReport)
	sdes, described := list[1].(*rtcp.SourceDescription)
	if !ok || !described {
		return fmt.Errorf("no report and description: %v", list)
	}
	got := Receipt{At: now, SSRC: rr.SSRC, CNAME: sdes.Chunks[0].Items[0].Text}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(list) > 2 {
		_, r.bye = list[2].(*rtcp.Goodbye)
	}
	if len(rr.Reports) > 0 {
		got.Block = rr.Reports[0]
		err = r.check(got)
	}
	r.reports = append(r.reports, got)
	return err
}

// check compares a report with what was sent. r.mu is held.
func (r *Reported) check(got Receipt) error {
	b := got.Block
	if b.SSRC != r.stream.SSRC {
		return fmt.Errorf("a report on %#x", b.SSRC)
	}
	lost, behind := uint32(0), r.stream.Seq-uint16(b.LastSequenceNumber)
	for _, seq := range r.lost {
		if r.stream.Seq-seq > behind {
			lost++
		}
	}
	if b.TotalLost != lost || behind == 0 || behind > 2000 {
		return fmt.Errorf("%d lost up to %d, sent up to %d and lost %d", b.TotalLost, b.LastSequenceNumber, r.stream.Seq, lost)
	}
	if b.LastSenderReport == 0 && b.Delay == 0 {
		return nil
	}
	since := time.Duration(b.Delay) * time.Second / 65536
	if b.LastSenderReport == r.ntp && since > got.At.Sub(r.sentSR)+time.Millisecond {
		return fmt.Errorf("%s since the sender's report, which is %s old", since, got.At.Sub(r.sentSR))
	}
	return nil
}

// Receipts are the reports so far, whether one was a farewell, and what was wrong
// with any.
func (r *Reported) Receipts() (list []Receipt, bye bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Receipt(nil), r.reports...), r.bye, errors.Join(r.faults...)
}

// LastNTP is what reports are to name as the last sender report.
func (r *Reported) LastNTP() uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ntp
}

// Close closes the sockets and waits for the listener.
func (r *Reported) Close() error {
	var errs []error
	for _, c := range r.conns {
		errs = append(errs, c.Close())
	}
	r.done.Wait()
	return errors.Join(errs...)
}

package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/pcap"
)

const ms = time.Millisecond

// sceneAnswer is when the call of a scene is answered.
const sceneAnswer = 100 * ms

// generated is a generated call between the carrier (side 0, the external one) and
// the PBX: its packets, and what of it must be heard where. Everything in it
// follows from its seed.
type generated struct {
	seed    uint64
	media   [2]netip.AddrPort
	cseq    int
	packets []generatedPacket
	said    [2][]saying
	typed   []typing
	end     time.Duration
	aal2    bool // g726_packing: aal2
}

type generatedPacket struct {
	at       time.Duration // after captureStart
	src, dst netip.AddrPort
	payload  []byte
}

// saying is what one side says without a break: ref at a time of the call, in
// seconds, is what is to be heard then.
type saying struct {
	from, to time.Duration
	ref      func(t float64) float64
}

// typing is a key that one side presses at a time of the call.
type typing struct {
	side  int
	digit string
	at    time.Duration
}

// voice is a source like speech, without an end and without a period: harmonics
// of a pitch that glides, in syllables. Nothing of it is above 3.4 kHz, so that it
// is the same at every rate. It is said live: what is said at a time is its value
// at that time.
type voice uint64

func (v voice) at(t float64) float64 {
	a, b, c := float64(v%7), float64(v%11), float64(v%13)
	phase := 2*math.Pi*(130+11*c)*t + 28*math.Sin(2*math.Pi*0.43*t+a) + 7*math.Sin(2*math.Pi*1.7*t+b)
	sum := 0.0
	for k := 1; k <= 9; k++ {
		sum += math.Sin(float64(k)*phase+float64(k*k)) / (1 + 0.3*float64(k))
	}
	loud := (0.62 + 0.38*math.Sin(2*math.Pi*3.1*t+b)) * (0.7 + 0.3*math.Sin(2*math.Pi*1.27*t+c))
	return 4000 * loud * sum
}

// coder is an encoder and what the SDP says of it.
type coder struct {
	pt       uint8
	rate     int // of the samples it takes
	clock    int // of its time stamps
	channels int
	delay    time.Duration // of encoder and decoder together
	encode   func(pcm []int16) []byte
}

func muLaw() coder {
	return coder{pt: 0, rate: 8000, clock: 8000, encode: func(pcm []int16) []byte { return octets(pcm, mediatest.MuLaw) }}
}

func aLaw() coder {
	return coder{pt: 8, rate: 8000, clock: 8000, encode: func(pcm []int16) []byte { return octets(pcm, mediatest.ALaw) }}
}

func octets(pcm []int16, f func(int16) byte) (b []byte) {
	for _, s := range pcm {
		b = append(b, f(s))
	}
	return b
}

func newGenerated(seed uint64) *generated {
	return &generated{seed: seed, media: [2]netip.AddrPort{netip.AddrPortFrom(carrier.Addr(), 4000), netip.AddrPortFrom(pbx.Addr(), 6000)}}
}

// body is the SDP of one side: maps are "PT NAME/CLOCK" or "PT NAME/CLOCK FMTP".
func (s *generated) body(side int, direction string, maps ...string) string {
	a := s.media[side]
	list, attrs := "", ""
	for _, m := range maps {
		var pt, name, fmtp string
		_, _ = fmt.Sscan(m, &pt, &name, &fmtp) // what there is of it
		list += " " + pt
		attrs += "a=rtpmap:" + pt + " " + name + "\r\n"
		if fmtp != "" {
			attrs += "a=fmtp:" + pt + " " + fmtp + "\r\n"
		}
	}
	return fmt.Sprintf("v=0\r\no=- 1 %[3]d IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio %[2]d RTP/AVP%[4]s\r\n%[5]sa=%[6]s\r\n", a.Addr(), a.Port(), s.cseq, list, attrs, direction)
}

const (
	sceneTo, sceneToTag = "To: <sip:alice@example.com>", "To: <sip:alice@example.com>;tag=b"
	sceneContact        = "Contact: <sip:x@10.0.0.5>"
)

// agree is an INVITE of the carrier and its answer, at which all takes effect.
func (s *generated) agree(at time.Duration, direction string, maps ...string) {
	s.agreeOn(at, direction, maps, maps)
}

// agreeOn has payload types of its own in the answer.
func (s *generated) agreeOn(at time.Duration, direction string, offered, answered []string) {
	s.cseq++
	answer := map[string]string{"sendonly": "recvonly", "sendrecv": "sendrecv", "inactive": "inactive"}[direction]
	cseq, to := fmt.Sprintf("%d INVITE", s.cseq), sceneTo
	if s.cseq > 1 {
		to = sceneToTag
	}
	s.put(at-100*ms, carrier, pbx, sipMessage("INVITE sip:alice@10.0.0.5 SIP/2.0", cseq, s.body(0, direction, offered...), to, sceneContact))
	s.put(at, pbx, carrier, sipMessage("SIP/2.0 200 OK", cseq, s.body(1, answer, answered...), sceneToTag, sceneContact))
	s.put(at+ms, carrier, pbx, sipMessage("ACK sip:x@10.0.0.5 SIP/2.0", fmt.Sprintf("%d ACK", s.cseq), "", sceneToTag))
}

func (s *generated) put(at time.Duration, src, dst netip.AddrPort, payload []byte) {
	s.packets = append(s.packets, generatedPacket{at, src, dst, payload})
	s.end = max(s.end, at)
}

// capture ends the call 100 ms after its last packet and writes all of it.
func (s *generated) capture(t *testing.T) []byte {
	t.Helper()
	s.cseq++
	at, cseq := s.end+100*ms, fmt.Sprintf("%d BYE", s.cseq)
	s.put(at, carrier, pbx, sipMessage("BYE sip:x@10.0.0.5 SIP/2.0", cseq, "", sceneToTag))
	s.put(at+ms, pbx, carrier, sipMessage("SIP/2.0 200 OK", cseq, "", sceneToTag))
	slices.SortStableFunc(s.packets, func(a, b generatedPacket) int { return cmp.Compare(a.at, b.at) })
	var b bytes.Buffer
	w := must(pcap.NewWriter(&b))(t)
	for _, p := range s.packets {
		if err := w.WriteUDP(captureStart.Add(p.at), p.src, p.dst, p.payload); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// speaker is a sender of RTP. Its fields may be changed between calls of talk.
type speaker struct {
	*generated
	mediatest.RTPStream
	coder
	side  int
	voice voice
	at    time.Duration // when its next packet leaves
	ptime time.Duration
	ppm   float64 // how much its clock is fast
	sent  int

	// way is what the network does to the packet of that number; nil: nothing.
	way func(n int) (delay time.Duration, lost bool)
	// wrap changes the payload before it is sent; nil: as it is.
	wrap func(payload []byte) []byte
}

// speaker makes the one of a side, whose first packet leaves after that time.
func (s *generated) speaker(side int, at time.Duration, c coder) *speaker {
	p := &speaker{generated: s, coder: c, side: side, at: at, ptime: 20 * ms, voice: voice(s.seed*31 + uint64(side)*17 + 5)}
	p.RTPStream = mediatest.RTPStream{SSRC: uint32(s.seed)<<8 | uint32(side+1), Seq: uint16(1000 * (side + 1)), Timestamp: uint32(70000 * (side + 1)), Marker: true}
	return p
}

// talk says live what there is to say for that long.
func (p *speaker) talk(d time.Duration) *speaker {
	from := p.at
	for ; p.at < from+d; p.at += p.interval() {
		p.send(p.encode(p.samples()))
	}
	v, delay := p.voice, p.delay.Seconds()
	p.says(from, p.at, func(t float64) float64 { return v.at(t - delay) })
	return p
}

// interval is what of true time one packet takes.
func (p *speaker) interval() time.Duration {
	return time.Duration(float64(p.ptime) / (1 + p.ppm/1e6))
}

// samples of one packet, channels interleaved; the second is the same.
func (p *speaker) samples() (pcm []int16) {
	n := int(p.ptime * time.Duration(p.rate) / time.Second)
	for i := range n {
		s := int16(math.Round(p.voice.at(p.at.Seconds() + float64(i)/(float64(p.rate)*(1+p.ppm/1e6)))))
		for range max(1, p.channels) {
			pcm = append(pcm, s)
		}
	}
	return pcm
}

// send sends one packet of audio; an empty payload is one that is left out (DTX).
func (p *speaker) send(payload []byte) {
	ticks := int(p.ptime * time.Duration(p.clock) / time.Second)
	if len(payload) == 0 {
		p.Timestamp += uint32(ticks)
		return
	}
	if p.wrap != nil {
		payload = p.wrap(payload)
	}
	p.PayloadType = p.pt
	p.packet(p.Next(payload, ticks))
}

func (p *speaker) packet(wire []byte) {
	var delay time.Duration
	var lost bool
	if p.way != nil {
		delay, lost = p.way(p.sent)
	}
	p.sent++
	if !lost {
		p.put(p.at+delay, p.media[p.side], p.media[1-p.side], wire)
	}
}

// pause says nothing for that long; its time stamps go on.
func (p *speaker) pause(d time.Duration) *speaker {
	p.at += d
	p.Timestamp += uint32(d * time.Duration(p.clock) / time.Second)
	p.Marker = true
	return p
}

// says notes what is heard from a side.
func (p *speaker) says(from, to time.Duration, ref func(t float64) float64) {
	p.said[p.side] = append(p.said[p.side], saying{from, to, ref})
}

// plays sends payloads whose samples are known.
func (p *speaker) plays(payloads [][]byte, pcm []int16) *speaker {
	from := p.at
	for _, b := range payloads {
		p.send(b)
		p.at += p.ptime
	}
	rate := float64(p.rate)
	p.says(from, p.at, func(t float64) float64 {
		i := int(math.Round((t - from.Seconds()) * rate))
		if i < 0 || i >= len(pcm) {
			return 0
		}
		return float64(pcm[i])
	})
	return p
}

// report sends an RTCP sender report (RFC 3550 section 6.4.1) by a clock that is
// ahead by that much.
func (p *speaker) report(ahead time.Duration) *speaker {
	at := captureStart.Add(p.at + ahead)
	ntp := uint64(at.Unix()+2208988800)<<32 | uint64(at.Nanosecond())<<32/1e9
	b := binary.BigEndian.AppendUint32([]byte{0x80, 200, 0, 6}, p.SSRC)
	b = binary.BigEndian.AppendUint64(b, ntp)
	b = binary.BigEndian.AppendUint32(b, p.Timestamp)
	b = binary.BigEndian.AppendUint32(b, uint32(p.sent))
	b = binary.BigEndian.AppendUint32(b, uint32(p.sent*160))
	src, dst := p.media[p.side], p.media[1-p.side]
	p.put(p.at, netip.AddrPortFrom(src.Addr(), src.Port()+1), netip.AddrPortFrom(dst.Addr(), dst.Port()+1), b)
	return p
}

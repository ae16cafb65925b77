package main

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	opus "gopkg.in/hraban/opus.v2"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/codec/amr"
)

func g722() coder {
	e := codec.NewG722Encoder()
	return coder{pt: 9, rate: 16000, clock: 8000, delay: 1375 * time.Microsecond, encode: func(pcm []int16) []byte {
		b := make([]byte, len(pcm)/2)
		e.Encode(b, pcm)
		return b
	}}
}

func linear(pt uint8, rate, channels int) coder {
	return coder{pt: pt, rate: rate, clock: rate, channels: channels, encode: func(pcm []int16) (b []byte) {
		for _, s := range pcm {
			b = binary.BigEndian.AppendUint16(b, uint16(s))
		}
		return b
	}}
}

func opusCoder(t *testing.T, channels int, app opus.Application, set func(*opus.Encoder) error) coder {
	t.Helper()
	e := must(opus.NewEncoder(48000, channels, app))(t)
	if err := set(e); err != nil {
		t.Fatal(err)
	}
	return coder{pt: 111, rate: 48000, clock: 48000, channels: channels, delay: 6500 * time.Microsecond, encode: func(pcm []int16) []byte {
		b := make([]byte, 1400)
		return b[:must(e.Encode(pcm, b))(t)]
	}}
}

// spoken is a call in which the carrier talks in that codec for two seconds, and
// the PBX in PCMU.
func spoken(format string, c func(*testing.T) coder, more func(*speaker)) func(*testing.T, *generated) {
	return func(t *testing.T, s *generated) {
		s.agree(sceneAnswer, "sendrecv", format, "0 PCMU/8000", "101 telephone-event/8000")
		s.speaker(1, 200*ms, muLaw()).talk(2 * time.Second)
		p := s.speaker(0, 200*ms, c(t))
		if more != nil {
			more(p)
		}
		p.talk(2 * time.Second)
	}
}

// stored is a call in which the carrier plays stored payloads.
func stored(format string, rate int, ptime time.Duration, f func(*testing.T) (payloads [][]byte, pcm []int16)) func(*testing.T, *generated) {
	return func(t *testing.T, s *generated) {
		s.agree(sceneAnswer, "sendrecv", format, "0 PCMU/8000")
		s.speaker(1, 200*ms, muLaw()).talk(2 * time.Second)
		p := s.speaker(0, 200*ms, coder{pt: 96, rate: rate, clock: rate})
		p.ptime = ptime
		p.plays(f(t))
	}
}

func codecVector(t *testing.T, name string) []byte {
	t.Helper()
	return must(os.ReadFile(filepath.Join("..", "..", "media", "codec", "testdata", name)))(t)
}

func vectorSamples(t *testing.T, name string) (pcm []int16) {
	t.Helper()
	for b := codecVector(t, name); len(b) > 1; b = b[2:] {
		pcm = append(pcm, int16(binary.LittleEndian.Uint16(b)))
	}
	return pcm
}

// cut returns pieces of a vector, and its samples.
func cut(name string, size int) func(*testing.T) ([][]byte, []int16) {
	return func(t *testing.T) (out [][]byte, pcm []int16) {
		for b := codecVector(t, name+".bin"); len(b) > 0; b = b[min(size, len(b)):] {
			out = append(out, b[:min(size, len(b))])
		}
		return out, vectorSamples(t, name+".s16le")
	}
}

// highFirst puts codes of so many bits that begin in the low bits of the octets (RFC
// 3551 section 4.5.4) into the high ones (ITU-T I.366.2).
func highFirst(b []byte, bits int) []byte {
	out := make([]byte, len(b))
	for i := range len(b) * 8 {
		to := i/bits*bits + bits - 1 - i%bits
		out[to/8] |= b[i/8] >> (i % 8) & 1 << (7 - to%8)
	}
	return out
}

// g729Stored are the frames of the vector; those of no octets are not sent.
func g729Stored(t *testing.T) (out [][]byte, pcm []int16) {
	for b := codecVector(t, "g729.bin"); len(b) > 0; b = b[1+int(b[0]):] {
		out = append(out, b[1:1+int(b[0])])
	}
	return out, vectorSamples(t, "g729.s16le")
}

var amrBits = map[bool][]int{
	false: {95, 103, 118, 134, 148, 159, 204, 244, 39},
	true:  {132, 177, 253, 285, 317, 365, 397, 461, 477, 40},
}

// amrStored are the frames of a storage file, each a payload, and what the library
// makes of them.
func amrStored(wide, aligned bool) func(*testing.T) ([][]byte, []int16) {
	return func(t *testing.T) (out [][]byte, pcm []int16) {
		b, ok := bytes.CutPrefix(codecVector(t, map[bool]string{false: "speech.amr", true: "speech.awb"}[wide]), []byte(map[bool]string{false: "#!AMR\n", true: "#!AMR-WB\n"}[wide]))
		if !ok {
			t.Fatal("no storage file")
		}
		d := must(amr.New(wide))(t)
		defer d.Close()
		for len(b) > 0 {
			bits := 0 // of a frame that says only that there is none
			if mode := int(b[0] >> 3 & 15); mode < len(amrBits[wide]) {
				bits = amrBits[wide][mode]
			}
			frame := b[:1+(bits+7)/8]
			b = b[len(frame):]
			out, pcm = append(out, amrPayload(frame, bits, aligned)), append(pcm, d.Frame(frame)...)
		}
		return out, pcm
	}
}

// amrPayload packs one frame (RFC 4867 sections 4.3 and 4.4).
func amrPayload(frame []byte, bits int, aligned bool) []byte {
	if aligned {
		return append([]byte{0xf0, frame[0] & 0x7c}, frame[1:]...)
	}
	out := make([]byte, (10+bits+7)/8+1)
	out[0], out[1] = 0xf0|frame[0]>>4&7, frame[0]<<4&0xc0
	for i, v := range frame[1:] {
		out[1+i] |= v >> 2
		out[2+i] |= v << 6
	}
	return out[:(10+bits+7)/8]
}

// gsmStored are frames of noise, and what the decoder makes of them, which its own
// tests hold against that of libgsm.
func gsmStored(t *testing.T) (out [][]byte, pcm []int16) {
	d := must(codec.NewDecoder(media.Format{Name: "GSM", ClockRate: 8000}, codec.DecoderOptions{}))(t)
	defer d.Close()
	rnd := rand.New(rand.NewPCG(captureSeed, 3))
	for range 100 {
		frame := make([]byte, 33)
		for i := range frame {
			frame[i] = byte(rnd.Uint32())
		}
		frame[0] = 0xd0 | frame[0]&15
		out, pcm = append(out, frame), must(d.Decode(pcm, frame))(t)
	}
	return out, pcm
}

// ilbc20Stored are frames of 20 ms of noise, and what the decoder makes of them, which
// its own tests hold against that of libavcodec.
func ilbc20Stored(t *testing.T) (out [][]byte, pcm []int16) {
	d := must(codec.NewDecoder(media.Format{Name: "ILBC", ClockRate: 8000, Params: "mode=20"}, codec.DecoderOptions{}))(t)
	defer d.Close()
	rnd := rand.New(rand.NewPCG(captureSeed, 4))
	speech := codecVector(t, "ilbc30.bin")
	for i := range 100 {
		frame := make([]byte, 38)
		for k := range frame {
			frame[k] = byte(rnd.Uint32())
		}
		copy(frame, speech[i%50*50:][:2]) // the spectrum of speech
		frame[37] &= 0xfe                 // not empty (RFC 3951 section 3.8)
		out, pcm = append(out, frame), must(d.Decode(pcm, frame))(t)
	}
	return out, pcm
}

// redundant puts the payload before into each (RFC 2198).
func redundant(p *speaker) {
	var before []byte
	pt := p.pt
	p.pt = 121
	p.wrap = func(b []byte) []byte {
		out := []byte{pt}
		if before != nil {
			out = append([]byte{0x80 | pt, 160 >> 6, 160 & 63 << 2, 160}, pt)
			out = append(out, before...)
		}
		before = b
		return append(out, b...)
	}
	p.way = func(n int) (time.Duration, bool) { return 0, n%9 == 5 }
}

// typed is a call in which the carrier types digits: the events' ends are sent
// three times, and of some of them only the last comes.
func typed(_ *testing.T, s *generated) {
	s.agree(sceneAnswer, "sendrecv", "0 PCMU/8000", "101 telephone-event/8000")
	s.speaker(1, 200*ms, muLaw()).talk(3 * time.Second)
	p := s.speaker(0, 200*ms, muLaw())
	for digit := range byte(4) {
		p.talk(400 * ms)
		s.typed = append(s.typed, typing{0, "0123"[digit : digit+1], p.at})
		for i := range 10 {
			p.PayloadType, p.Marker = 101, i == 0
			event := []byte{digit, 10, 0, 0}
			if i > 7 {
				event[1] |= 0x80
			}
			binary.BigEndian.PutUint16(event[2:], uint16(160*min(i+1, 8)))
			lose := digit == 2 && i > 0 && i < 9
			p.way = func(int) (time.Duration, bool) { return 0, lose }
			p.packet(p.Next(event, 0))
			p.at += 20 * ms
		}
		p.Timestamp += 1600
		p.way = nil
	}
	p.talk(400 * ms)
}

// noisy is a call with comfort noise (RFC 3389) in between.
func noisy(_ *testing.T, s *generated) {
	s.agree(sceneAnswer, "sendrecv", "8 PCMA/8000", "0 PCMU/8000", "13 CN/8000")
	s.speaker(1, 200*ms, muLaw()).talk(3 * time.Second)
	p := s.speaker(0, 200*ms, aLaw())
	for range 3 {
		p.talk(600 * ms)
		for range 4 {
			p.PayloadType = 13
			p.packet(p.Next([]byte{60, 100, 120}, 800))
			p.at += 100 * ms
		}
	}
}

// crossed is a call of L16 whose parties have other payload types: each sends with the
// number of the other's description (RFC 3264 section 5.1), under which its own has
// telephone-event.
func crossed(_ *testing.T, s *generated) {
	s.agreeOn(sceneAnswer, "sendrecv",
		[]string{"96 L16/16000", "111 telephone-event/16000"},
		[]string{"111 L16/16000", "96 telephone-event/16000"})
	s.speaker(1, 200*ms, linear(96, 16000, 1)).talk(2 * time.Second)
	s.speaker(0, 200*ms, linear(111, 16000, 1)).talk(2 * time.Second)
}

func codecCaptures() (list []captureCase) {
	near := 5 * ms
	add := func(name string, rate int, l faithful, machine bool, f func(*testing.T, *generated)) {
		list = append(list, captureCase{name, rate, near, l, machine, f})
	}
	of := func(c func() coder) func(*testing.T) coder { return func(*testing.T) coder { return c() } }
	add("PCMU", 8000, faithful{0.999, 35}, false, spoken("0 PCMU/8000", of(muLaw), nil))
	add("PCMA", 8000, faithful{0.999, 35}, false, spoken("8 PCMA/8000", of(aLaw), nil))
	add("G722", 16000, faithful{0.995, 20}, false, spoken("9 G722/8000", of(g722), nil))
	add("RED", 8000, faithful{0.999, 35}, false, spoken("121 red/8000 0/0", of(muLaw), redundant))
	for _, c := range []struct {
		name           string
		rate, channels int
		format         string
	}{
		{"L16 8 kHz", 8000, 1, "96 L16/8000"},
		{"L16 11.025 kHz", 11025, 1, "96 L16/11025"},
		{"L16 16 kHz", 16000, 1, "96 L16/16000"},
		{"L16 16 kHz stereo", 16000, 2, "96 L16/16000/2"},
		{"L16 22.05 kHz", 22050, 1, "96 L16/22050"},
		{"L16 24 kHz", 24000, 1, "96 L16/24000"},
		{"L16 32 kHz", 32000, 1, "96 L16/32000"},
		{"L16 44.1 kHz", 44100, 1, "96 L16/44100"},
		{"L16 44.1 kHz stereo", 44100, 2, "96 L16/44100/2"},
		{"L16 48 kHz", 48000, 1, "96 L16/48000"},
		{"L16 48 kHz stereo", 48000, 2, "96 L16/48000/2"},
	} {
		to := map[int]int{8000: 8000, 11025: 16000, 16000: 16000}[c.rate]
		if to == 0 {
			to = 48000
		}
		add(c.name, to, faithful{0.999, 70}, false, spoken(c.format, of(func() coder { return linear(96, c.rate, c.channels) }), func(p *speaker) {
			for p.ptime = 10 * ms; p.ptime*time.Duration(c.rate)%time.Second != 0; p.ptime *= 2 { // whole samples
			}
		}))
	}
	for _, c := range []struct {
		kbps string
		size int
	}{{"16", 40}, {"24", 60}, {"32", 80}, {"40", 100}} {
		add("G726-"+c.kbps, 8000, faithful{0.999, 35}, false, stored("96 G726-"+c.kbps+"/8000", 8000, 20*ms, cut("g726-"+c.kbps, c.size)))
		aal2 := func(t *testing.T) ([][]byte, []int16) {
			payloads, pcm := cut("g726-"+c.kbps, c.size)(t)
			for i, b := range payloads {
				payloads[i] = highFirst(b, len(b)*8/160)
			}
			return payloads, pcm
		}
		add("AAL2-G726-"+c.kbps, 8000, faithful{0.999, 35}, false, stored("96 AAL2-G726-"+c.kbps+"/8000", 8000, 20*ms, aal2))
		add("G726-"+c.kbps+" packed as AAL2", 8000, faithful{0.999, 35}, false, func(t *testing.T, s *generated) {
			s.aal2 = true
			stored("96 G726-"+c.kbps+"/8000", 8000, 20*ms, aal2)(t, s)
		})
	}
	add("GSM", 8000, faithful{0.999, 30}, false, stored("96 GSM/8000", 8000, 20*ms, gsmStored))
	add("G729", 8000, faithful{0.99, 22}, true, stored("96 G729/8000", 8000, 10*ms, g729Stored))
	add("iLBC", 8000, faithful{0.99, 25}, true, stored("96 iLBC/8000 mode=30", 8000, 30*ms, cut("ilbc30", 50)))
	add("iLBC 20 ms", 8000, faithful{0.999, 30}, true, stored("96 iLBC/8000 mode=20", 8000, 20*ms, ilbc20Stored))
	add("AMR octet-aligned", 8000, faithful{0.999, 30}, true, stored("96 AMR/8000 octet-align=1", 8000, 20*ms, amrStored(false, true)))
	add("AMR bandwidth-efficient", 8000, faithful{0.999, 30}, true, stored("96 AMR/8000", 8000, 20*ms, amrStored(false, false)))
	add("AMR-WB octet-aligned", 16000, faithful{0.999, 30}, true, stored("96 AMR-WB/16000 octet-align=1", 16000, 20*ms, amrStored(true, true)))
	add("AMR-WB bandwidth-efficient", 16000, faithful{0.999, 30}, true, stored("96 AMR-WB/16000", 16000, 20*ms, amrStored(true, false)))
	bits := func(bps int) func(*opus.Encoder) error {
		return func(e *opus.Encoder) error { return e.SetBitrate(bps) }
	}
	opusOf := func(channels int, app opus.Application, set func(*opus.Encoder) error) func(*testing.T) coder {
		return func(t *testing.T) coder { return opusCoder(t, channels, app, set) }
	}
	add("Opus", 48000, faithful{0.98, 0}, true, spoken("111 opus/48000/2", opusOf(1, opus.AppAudio, bits(96000)), nil))
	add("Opus stereo", 48000, faithful{0.98, 0}, true, spoken("111 opus/48000/2 stereo=1", opusOf(2, opus.AppAudio, bits(128000)), nil))
	add("Opus with lost packets", 48000, faithful{0.85, 0}, true, spoken("111 opus/48000/2 useinbandfec=1", opusOf(1, opus.AppVoIP, func(e *opus.Encoder) error {
		_ = e.SetBitrate(32000) // in range
		_ = e.SetInBandFEC(true)
		return e.SetPacketLossPerc(20)
	}), func(p *speaker) { p.way = func(n int) (time.Duration, bool) { return 0, n%10 == 7 } }))
	add("Opus with pauses", 48000, faithful{0.85, 0}, true, spoken("111 opus/48000/2 usedtx=1", opusOf(1, opus.AppVoIP, func(e *opus.Encoder) error {
		_ = e.SetBitrate(32000) // in range
		return e.SetDTX(true)
	}), func(p *speaker) { p.talk(time.Second).pause(time.Second) }))
	add("payload types crossed", 16000, faithful{0.999, 60}, false, crossed)
	add("telephone-event", 8000, faithful{0.999, 30}, false, typed)
	add("comfort noise", 8000, faithful{0.999, 30}, false, noisy)
	return list
}

package overlay

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtp"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
)

func TestValidate(t *testing.T) {
	edit := func(f func(*Beep)) Beep {
		b := genesys
		f(&b)
		return b
	}
	for want, b := range map[string]Beep{
		"":                            genesys,
		"frequency 5000 Hz":           edit(func(b *Beep) { b.Frequency = 5000 }),
		"frequency 0 Hz":              edit(func(b *Beep) { b.Frequency = 0 }),
		"frequency NaN Hz":            edit(func(b *Beep) { b.Frequency = math.NaN() }),
		"second frequency 20 Hz":      edit(func(b *Beep) { b.Second = 20 }),
		"level 3 dB":                  edit(func(b *Beep) { b.LevelDB = 3 }),
		"level -90 dB":                edit(func(b *Beep) { b.LevelDB = -90 }),
		"duration 1ms":                edit(func(b *Beep) { b.Duration = time.Millisecond }),
		"duration 6s":                 edit(func(b *Beep) { b.Duration = 6 * time.Second }),
		"interval 0s":                 edit(func(b *Beep) { b.Interval = 0 }),
		"at least twice the duration": edit(func(b *Beep) { b.Duration, b.Interval = time.Second, 1500*time.Millisecond }),
	} {
		err := b.Validate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%+v: %v, want %q", b, err, want)
		}
	}
	if err := (Beep{}).Validate(); strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("not all faults: %v", err)
	}
}

func TestNothingToDo(t *testing.T) {
	b := genesys
	full := Config{Formats: []media.Format{pcmu}, Beep: &b, Epoch: epoch}
	if New(full) == nil {
		t.Fatal("no overlay")
	}
	for name, edit := range map[string]func(*Config){
		"no sound":     func(c *Config) { c.Beep = nil },
		"encrypted":    func(c *Config) { c.Secure = true },
		"not answered": func(c *Config) { c.Epoch = time.Time{} },
		"not understood": func(c *Config) {
			c.Formats = []media.Format{
				{PayloadType: 101, Name: "TELEPHONE-EVENT", ClockRate: 8000},
				{PayloadType: 13, Name: "CN", ClockRate: 8000},
				{PayloadType: 0, Name: "PCMU", ClockRate: 16000},
				{PayloadType: 9, Name: "G722", ClockRate: 8000, Channels: 2},
				{PayloadType: 200, Name: "PCMU", ClockRate: 8000},
			}
		},
	} {
		c := full
		edit(&c)
		if New(c) != nil {
			t.Errorf("%s: an overlay", name)
		}
	}
}

// Everything of a packet but its payload survives, in every codec.
func TestHeadersSurvive(t *testing.T) {
	all := coders(t)
	rapid.Check(t, func(t *rapid.T) {
		c := all[rapid.SampledFrom([]string{"PCMU", "PCMA", "G722", "opus speech"}).Draw(t, "codec")]
		h := rtp.Header{
			Version: 2, Marker: rapid.Bool().Draw(t, "marker"), PayloadType: c.format.PayloadType,
			SequenceNumber: rapid.Uint16().Draw(t, "seq"), Timestamp: rapid.Uint32().Draw(t, "ts"), SSRC: rapid.Uint32().Draw(t, "ssrc"),
			CSRC: rapid.SliceOfN(rapid.Uint32(), 0, 15).Draw(t, "csrc"),
		}
		if rapid.Bool().Draw(t, "extension") {
			h.Extension, h.ExtensionProfile = true, 0xbede
			if err := h.SetExtension(3, rapid.SliceOfN(rapid.Byte(), 1, 16).Draw(t, "ext")); err != nil {
				t.Fatal(err)
			}
		}
		p := rtp.Packet{Header: h, Payload: c.encode(speech(c.rate, c.rate/50, 1, 3000))}
		if n := rapid.IntRange(0, 255).Draw(t, "padding"); n > 0 {
			p.Header.Padding, p.PaddingSize = true, byte(n)
		}
		wire, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		b := genesys
		o := New(Config{Formats: []media.Format{c.format}, Beep: &b, Epoch: epoch})
		out := o.Apply(epoch.Add(time.Millisecond), wire)
		var was, got rtp.Packet
		if err := was.Unmarshal(wire); err != nil {
			t.Fatal(err)
		}
		if err := got.Unmarshal(out); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(was.Payload, got.Payload) {
			t.Fatal("no tone")
		}
		if c.format.Name != "OPUS" && len(was.Payload) != len(got.Payload) {
			t.Fatalf("payload of %d bytes, was %d", len(got.Payload), len(was.Payload))
		}
		was.Payload, got.Payload = nil, nil
		if d := cmp.Diff(was, got, cmp.AllowUnexported(rtp.Extension{})); d != "" {
			t.Fatal(d)
		}
	})
}

func TestUndecodablePacketsPass(t *testing.T) {
	b, counts := genesys, &Counts{}
	o := New(Config{Formats: []media.Format{pcmu, g722, opu}, Beep: &b, Epoch: epoch, Counts: counts})
	s := mediatest.RTPStream{SSRC: 1}
	send := func(payloadType uint8, payload []byte) bool {
		s.PayloadType = payloadType
		wire := s.Next(payload, 160)
		keep := bytes.Clone(wire)
		out := o.Apply(epoch.Add(time.Millisecond), wire)
		if !bytes.Equal(wire, keep) {
			t.Fatal("the packet given was changed")
		}
		return &out[0] == &wire[0]
	}
	bad := [][]byte{{0xff, 0xff}, {3}, {0xfb, 0x3f}, {0xfb, 0x00}, {0x1b, 0x41}, append([]byte{0x1b, 4}, make([]byte, 3)...)}
	for i, payload := range bad {
		if !send(111, payload) || counts.Undecodable.Load() != uint64(i+1) {
			t.Errorf("%x: changed, or not counted: %d", payload, counts.Undecodable.Load())
		}
	}
	if !send(9, make([]byte, 3000)) || counts.Undecodable.Load() != uint64(len(bad)+1) {
		t.Error("a long packet of G.722 was taken")
	}
	for _, wire := range [][]byte{nil, {0x80}, make([]byte, 12), make([]byte, 5000), append([]byte{0x90}, make([]byte, 13)...), {0x8f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, {0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}} {
		if out := o.Apply(epoch, wire); !bytes.Equal(out, wire) {
			t.Errorf("%x became %x", wire, out)
		}
	}
	if send(0, make([]byte, 160)) || counts.Mixed.Load() != 1 {
		t.Error("and then no tone any more")
	}
}

// FuzzApply gives packets of anything to an overlay that always has something to
// mix in: never a panic, never a changed input, and always a packet with the same header.
func FuzzApply(f *testing.F) {
	s := mediatest.RTPStream{SSRC: 1}
	for pt, c := range map[uint8]coder{0: coders(f)["PCMU"], 9: coders(f)["G722"], 111: coders(f)["opus speech"]} {
		s.PayloadType = pt
		f.Add(s.Next(c.encode(speech(c.rate, c.rate/50, 1, 3000)), 160), int64(20), uint8(2))
	}
	f.Add([]byte{0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x83, 0x07, 1, 2, 3, 4, 5, 6, 7}, int64(-20), uint8(9))
	f.Fuzz(func(t *testing.T, wire []byte, step int64, n uint8) {
		b := Beep{Frequency: 1400, Second: 500, Duration: time.Second, Interval: 2 * time.Second, LevelDB: -3}
		o := New(Config{Formats: []media.Format{pcmu, pcma, g722, opu}, Beep: &b, Epoch: epoch})
		at := epoch
		for range n % 16 {
			keep := bytes.Clone(wire)
			out := o.Apply(at, wire)
			if !bytes.Equal(keep, wire) {
				t.Fatal("the input changed")
			}
			if len(out) > 2*packetBytesMax || len(wire) >= 12 && !bytes.Equal(out[:12], wire[:12]) {
				t.Fatalf("%d bytes: %x", len(out), out[:min(len(out), 12)])
			}
			at = at.Add(time.Duration(step % 1e12))
			if len(wire) > 8 {
				wire[3]++
				wire[6] ^= byte(step)
			}
		}
	})
}

package overlay

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os/exec"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
)

// vectors are samples and octets that reach every branch: swelling and full scale
// noise, and silence. They are made of whole numbers, alike on every processor.
func vectors() (pcm []int16, octets []byte) {
	x := uint32(1)
	next := func() uint32 { x = x*1664525 + 1013904223; return x >> 8 }
	smooth := 0
	for i := range 32000 {
		smooth += (int(int16(next())) - smooth) >> (1 + i>>12)
		pcm = append(pcm, int16(smooth*(i&0xfff)>>12))
	}
	for range 16000 {
		pcm = append(pcm, int16(next()))
	}
	pcm = append(pcm, make([]int16, 8000)...)
	for range 50000 {
		octets = append(octets, byte(next()))
	}
	return pcm, octets
}

func pcmBytes(pcm []int16) (out []byte) {
	for _, v := range pcm {
		out = binary.LittleEndian.AppendUint16(out, uint16(v))
	}
	return out
}

// The sums are those of what libavcodec makes of the same samples and octets.
func TestG722IsBitExact(t *testing.T) {
	pcm, octets := vectors()
	c := g722Coder()
	for what, v := range map[string]struct {
		got  []byte
		want string
	}{
		"encoder": {c.encode(pcm), "98e082261378eaa7"},
		"decoder": {pcmBytes(c.decode(octets)), "1df6418ef4c4bef9"},
	} {
		sum := sha256.Sum256(v.got)
		if got := hex.EncodeToString(sum[:8]); got != v.want {
			t.Errorf("%s: %s, want %s", what, got, v.want)
		}
	}
}

// The same against libavcodec itself, where it is installed.
func TestG722AgainstPeer(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("no ffmpeg: not compared with it")
	}
	pcm, octets := vectors()
	c := g722Coder()
	peer := func(in []byte, args ...string) []byte {
		cmd := exec.Command("ffmpeg", append([]string{"-v", "error"}, args...)...)
		cmd.Stdin = bytes.NewReader(in)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("ffmpeg: %v", err)
		}
		return out
	}
	if !bytes.Equal(peer(octets, "-f", "g722", "-i", "-", "-f", "s16le", "-"), pcmBytes(c.decode(octets))) {
		t.Error("the decoders differ")
	}
	if !bytes.Equal(peer(pcmBytes(pcm), "-f", "s16le", "-ar", "16000", "-ac", "1", "-i", "-", "-c:a", "g722", "-f", "g722", "-"), c.encode(pcm)) {
		t.Error("the encoders differ")
	}
}

// A decoder that begins lead before a beep knows by then what one knows that
// heard everything.
func TestLeadIsLongEnough(t *testing.T) {
	c := g722Coder()
	octets := c.encode(speech(16000, 64000, 1, 8000))
	whole, late := g722Decoder{g722Bands: newG722Bands()}, g722Decoder{g722Bands: newG722Bands()}
	a, b := make([]int16, 2*len(octets)), make([]int16, 2*len(octets))
	whole.decode(a, octets)
	begin := 8000
	late.decode(b[2*begin:], octets[begin:])
	at := 2 * (begin + int(lead.Seconds()*g722Clock))
	if snr := snrDB(b[at:at+3200], a[at:at+3200]); snr < 60 {
		t.Errorf("after %v the decoders differ by %.1f dB", lead, snr)
	}
}

// While the sender's octets would sound wrong to the far end, it gets others that
// say the same, a filter's delay late.
func TestG722SettlesInaudibly(t *testing.T) {
	b := genesys
	b.Interval, b.LevelDB = 2*time.Second, -10 // louder than the speech
	o := New(Config{Formats: []media.Format{g722}, Beep: &b, Epoch: epoch})
	c := run(g722Coder(), g722Coder(), o, speech(16000, 20*16000, 1, 6000), 20*time.Millisecond, epoch, 0)
	spans := c.changed()
	if len(spans) != 10 {
		t.Fatalf("changed %v", spans)
	}
	longest := 0
	for _, span := range spans[:len(spans)-1] {
		longest = max(longest, span[1]-span[0]-10)
		from, to := (span[0]+10)*320+160, span[1]*320
		if to-from < 320 {
			continue
		}
		if snr := snrDB(c.heard[from:to], c.clean[from-22:to-22]); snr < 20 {
			t.Errorf("coding anew in packets %v has an SNR of %.1f dB", span, snr)
		}
		end := span[0]*320 + 2*16000 - 320 // the next beep
		if snr := snrDB(c.heard[to+320:end], c.clean[to+320:end]); snr < 25 {
			t.Errorf("after packets %v the sender is heard with an SNR of %.1f dB", span, snr)
		}
	}
	if longest == 0 || longest > 85 {
		t.Errorf("%d packets were coded anew after a beep", longest)
	}
	t.Logf("at most %d packets coded anew after a beep", longest)
}

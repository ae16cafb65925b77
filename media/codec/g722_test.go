package codec

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os/exec"
	"testing"
)

// peer runs ffmpeg on in and returns its output; it skips the test when there is none.
func peer(t testing.TB, in []byte, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("no ffmpeg: not compared with it")
	}
	cmd := exec.Command("ffmpeg", append([]string{"-v", "error", "-nostdin"}, args...)...)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ffmpeg %v: %v", args, err)
	}
	return out
}

func pcmBytes(pcm []int16) (out []byte) {
	for _, v := range pcm {
		out = binary.LittleEndian.AppendUint16(out, uint16(v))
	}
	return out
}

func samplesOf(b []byte) (pcm []int16) {
	for ; len(b) > 1; b = b[2:] {
		pcm = append(pcm, int16(binary.LittleEndian.Uint16(b)))
	}
	return pcm
}

// g722Vectors are samples and octets that reach every branch: swelling and full scale
// noise, and silence. They are made of whole numbers, alike on every processor.
func g722Vectors() (pcm []int16, octets []byte) {
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

func g722Both(pcm []int16, octets []byte) (coded []byte, decoded []int16) {
	e, d := NewG722Encoder(), NewG722Decoder()
	coded, decoded = make([]byte, len(pcm)/2), make([]int16, 2*len(octets))
	e.Encode(coded, pcm)
	d.Decode(decoded, octets)
	return coded, decoded
}

// The sums are those of what libavcodec makes of the same samples and octets.
func TestG722IsBitExact(t *testing.T) {
	coded, decoded := g722Both(g722Vectors())
	for what, v := range map[string]struct {
		got  []byte
		want string
	}{
		"encoder": {coded, "98e082261378eaa7"},
		"decoder": {pcmBytes(decoded), "1df6418ef4c4bef9"},
	} {
		sum := sha256.Sum256(v.got)
		if got := hex.EncodeToString(sum[:8]); got != v.want {
			t.Errorf("%s: %s, want %s", what, got, v.want)
		}
	}
}

// The same against libavcodec itself, where it is installed.
func TestG722AgainstPeer(t *testing.T) {
	pcm, octets := g722Vectors()
	coded, decoded := g722Both(pcm, octets)
	if !bytes.Equal(peer(t, octets, "-f", "g722", "-i", "-", "-f", "s16le", "-"), pcmBytes(decoded)) {
		t.Error("the decoders differ")
	}
	if !bytes.Equal(peer(t, pcmBytes(pcm), "-f", "s16le", "-ar", "16000", "-ac", "1", "-i", "-", "-c:a", "g722", "-f", "g722", "-"), coded) {
		t.Error("the encoders differ")
	}
}

// A copy goes on from the same state.
func TestG722IsAPlainValue(t *testing.T) {
	pcm, octets := g722Vectors()
	d := NewG722Decoder()
	d.Decode(pcm, octets[:2000])
	c := d
	a, b := make([]int16, 2000), make([]int16, 2000)
	d.Decode(a, octets[2000:3000])
	c.Decode(b, octets[2000:3000])
	if c != d || !bytes.Equal(pcmBytes(a), pcmBytes(b)) {
		t.Error("a copy went elsewhere")
	}
}

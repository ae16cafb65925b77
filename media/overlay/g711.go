package overlay

import "github.com/trunktap/trunktap/media/codec"

const g711Clock = 8000

// g711Transcoder has no memory: every packet stands for itself, whatever came
// before. Octets whose sample nothing was added to stay as they were, for
// there are two codes of zero.
type g711Transcoder struct {
	linear [256]int16
	code   func(int16) byte
	pcm    [packetBytesMax]int16
}

func newMuLaw() *g711Transcoder {
	t := &g711Transcoder{code: codec.MuLaw}
	for i := range t.linear {
		t.linear[i] = codec.MuLawLinear(byte(i))
	}
	return t
}

func newALaw() *g711Transcoder {
	t := &g711Transcoder{code: codec.ALaw}
	for i := range t.linear {
		t.linear[i] = codec.ALawLinear(byte(i))
	}
	return t
}

func (*g711Transcoder) clock() int                          { return g711Clock }
func (*g711Transcoder) duration(payload []byte) (int, bool) { return len(payload), true }
func (*g711Transcoder) reset()                              {}

func (t *g711Transcoder) transcode(dst, payload []byte, m *moment) ([]byte, error) {
	if !m.sound() {
		return nil, nil
	}
	pcm := t.pcm[:len(payload)]
	for i, octet := range payload {
		pcm[i] = t.linear[octet]
	}
	m.add(pcm, 1, g711Clock, g711Clock)
	for i, octet := range payload {
		if pcm[i] != t.linear[octet] {
			octet = t.code(pcm[i])
		}
		dst = append(dst, octet)
	}
	return dst, nil
}

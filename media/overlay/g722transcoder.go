package overlay

import "github.com/trunktap/trunktap/media/codec"

const (
	g722Clock   = 8000 // RFC 3551 section 4.5.2: it counts octets, two samples each
	g722Rate    = 16000
	g722Octets  = 2048      // of a payload, at most
	g722Follows = g722Clock // ticks after which what is left of a difference is forgotten
)

// g722Transcoder keeps three coders in step. ADPCM has memory: the far end's
// decoder follows the octets that it gets, so after a sound it stands elsewhere than the
// sender's coder assumes, and the sender's octets would sound wrong to it.
//
// Therefore coding goes on after a sound, and at every packet a copy of the far
// end's decoder tries the sender's octets. They go out again as soon as it makes of them
// what the sender's own decoder would, to 30 dB below the signal. That takes a few
// packets, since G.722 forgets by design; until then nobody hears a difference, and
// after it the packets are the sender's own, without the loss of coding twice.
//
// A new coding lags by the filters' 22 samples: the far end hears 1.4 ms of
// speech twice where a sound begins, and misses as much where coding ends.
type g722Transcoder struct {
	sender codec.G722Decoder // fed with what came
	before [24]int           // the latest samples that it made

	heard   codec.G722Decoder // fed with what was sent
	differs int               // ticks for which heard is still fed apart from sender
	encoder codec.G722Encoder
	coding  bool

	pcm, trial [2 * g722Octets]int16
}

func newG722Transcoder() *g722Transcoder {
	t := &g722Transcoder{}
	t.reset()
	return t
}

func (*g722Transcoder) clock() int { return g722Clock }

func (*g722Transcoder) duration(payload []byte) (int, bool) {
	return len(payload), len(payload) <= g722Octets
}

func (t *g722Transcoder) reset() {
	t.sender = codec.NewG722Decoder()
	t.before = [24]int{}
	t.differs, t.coding = 0, false
}

func (t *g722Transcoder) transcode(dst, payload []byte, m *moment) ([]byte, error) {
	if !m.fresh || !m.sound() && !t.coding && t.differs == 0 && !m.soon {
		return nil, nil
	}
	if t.differs == 0 {
		t.heard = t.sender
	}
	pcm := t.pcm[:2*len(payload)]
	t.sender.Decode(pcm, payload)
	dst = t.replace(dst, payload, pcm, m)
	n := min(len(pcm), len(t.before))
	copy(t.before[:], t.before[n:])
	for i, v := range pcm[len(pcm)-n:] {
		t.before[len(t.before)-n+i] = int(v)
	}
	return dst, nil
}

// replace appends the octets to send, or returns nil when they are the sender's.
func (t *g722Transcoder) replace(dst, payload []byte, pcm []int16, m *moment) []byte {
	if !m.sound() && t.passes(payload, pcm) {
		return nil
	}
	if !t.coding {
		t.encoder = t.heard.Encoder(t.before)
		t.coding = true
	}
	t.differs = g722Follows
	copy(t.trial[:], pcm)
	m.add(t.trial[:len(pcm)], 1, g722Clock, g722Rate)
	at := len(dst)
	dst = append(dst, payload...)
	t.encoder.Encode(dst[at:], t.trial[:len(pcm)])
	t.heard.Decode(t.trial[:len(pcm)], dst[at:])
	return dst
}

// passes says whether the sender's octets go out, and lets the far end's decoder
// follow them if so.
func (t *g722Transcoder) passes(payload []byte, pcm []int16) bool {
	if !t.coding && t.differs == 0 {
		return true
	}
	far := t.heard
	far.Decode(t.trial[:], payload)
	if t.coding && !alike(t.trial[:len(pcm)], pcm) {
		return false
	}
	t.heard, t.coding = far, false
	if t.differs = max(0, t.differs-len(payload)); t.heard == t.sender {
		t.differs = 0
	}
	return true
}

// alike compares what the far end would hear with what was meant: the difference
// is 30 dB below it, or too faint to be heard at all.
func alike(heard, meant []int16) bool {
	var difference, power int64
	for i, v := range meant {
		d := int64(heard[i]) - int64(v)
		difference += d * d
		power += int64(v) * int64(v)
	}
	return difference*1000 <= power+int64(len(meant))*1000*inaudible
}

// inaudible is the power of a sample of 10, 70 dB below full scale.
const inaudible = 100

package overlay

import (
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
)

// A decoder that begins lead before a beep knows by then what one knows that
// heard everything.
func TestLeadIsLongEnough(t *testing.T) {
	c := g722Coder()
	octets := c.encode(speech(16000, 64000, 1, 8000))
	whole, late := codec.NewG722Decoder(), codec.NewG722Decoder()
	a, b := make([]int16, 2*len(octets)), make([]int16, 2*len(octets))
	whole.Decode(a, octets)
	begin := 8000
	late.Decode(b[2*begin:], octets[begin:])
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

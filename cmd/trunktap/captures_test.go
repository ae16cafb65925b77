package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media/pcap"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/plain"
	"github.com/trunktap/trunktap/sip/replay"
)

var capturesDir = flag.String("captures", "", "directory to write the generated captures to")

// captureSeed is what all generated captures follow from.
const captureSeed = 20261122

// captureCase is one generated capture, and what its recording must be like.
type captureCase struct {
	name   string
	rate   int           // of the recording, Hz; 0: 8000
	within time.Duration // how far what is heard may be from its place
	faithful
	machine bool // another build of the codec's library gives other samples or packets: no hash
	make    func(t *testing.T, s *generated)
}

// faithful is how like a channel must be to what its side said: the correlation,
// and the ratio to the difference in dB where it is not 0.
type faithful struct{ correlation, snr float64 }

// TestCapturesGolden records generated calls: one of each codec, and one of each
// thing that the time stamps of a stream do. What is heard is compared with what
// was said, sample by sample and in its place; and what came out with the .want
// of testdata/captures, which has hashes of the samples where they are the same
// on every machine.
//
//	go test ./cmd/trunktap -run CapturesGolden -update          rewrites these
//	go test ./cmd/trunktap -run CapturesGolden -captures DIR    leaves the captures there
func TestCapturesGolden(t *testing.T) {
	dir := filepath.Join("..", "..", "testdata", "captures")
	for _, c := range append(codecCaptures(), timelineCaptures()...) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			seed, file := captureSeed+uint64(crc32.ChecksumIEEE([]byte(c.name))), strings.ReplaceAll(c.name, " ", "-")
			s, again := newGenerated(seed), newGenerated(seed)
			c.make(t, s)
			c.make(t, again)
			capture := s.capture(t)
			if !bytes.Equal(capture, again.capture(t)) {
				t.Fatal("the same seed gives another capture")
			}
			if *capturesDir != "" {
				mustWrite(t, filepath.Join(*capturesDir, file+".pcap"), string(capture))
			}
			m, out := recordCapture(t, capture, max(c.rate, 8000), s.aal2)
			var b strings.Builder
			c.describe(t, &b, capture, m, out)
			c.compare(t, filepath.Join(dir, file+".want"), b.String())
			c.check(t, s, m, readPCM(t, filepath.Join(out, m.Segments[0].File)))
		})
	}
}

// recordCapture records the one call of a capture, what is suppressed as silence,
// and returns its folder as well.
func recordCapture(t *testing.T, capture []byte, rate int, aal2 bool) (*recorder.Manifest, string) {
	t.Helper()
	plan, dir := simPlan(), t.TempDir()
	plan.SampleRate, plan.G726AAL2, plan.Suppressed = rate, aal2, recorder.SuppressedSilence
	r := must(recorder.New(recorder.Config{Policy: simPolicy{plan}, NewSink: plain.New(dir).NewSink, Synchronous: true}))(t)
	src := must(pcap.NewReader(bytes.NewReader(capture)))(t)
	trunk := replay.Trunk{
		Name: "trunk", External: []netip.Prefix{netip.PrefixFrom(carrier.Addr(), 32)}, Internal: []netip.Prefix{netip.PrefixFrom(pbx.Addr(), 32)},
	}
	_, err := replay.Run(t.Context(), src, replay.Config{Trunks: []replay.Trunk{trunk}}, r, nil)
	list, more := r.Results()
	if err = errors.Join(err, more, r.Close(context.Background())); err != nil || len(list) != 1 || len(list[0].Segments) != 1 {
		t.Fatalf("%d recordings, %v", len(list), err)
	}
	return list[0], filepath.Join(dir, list[0].ID)
}

func (c captureCase) describe(t *testing.T, b *strings.Builder, capture []byte, m *recorder.Manifest, dir string) {
	t.Helper()
	if !c.machine {
		fmt.Fprintf(b, "capture %d bytes %s\n", len(capture), hash(capture))
	}
	fmt.Fprintf(b, "like what was said: within %v, correlation at least %.3f, ratio at least %.0f dB\n", c.within, c.correlation, c.snr)
	var text strings.Builder
	describeGolden(t, &text, m, dir)
	for line := range strings.Lines(text.String()) {
		if c.machine && strings.HasPrefix(line, "segment ") {
			line, _, _ = strings.Cut(line, " external ")
			line += "\n"
		}
		if c.machine && strings.Contains(line, " loss ") {
			continue // what packets have of those before them is the encoder's choice
		}
		b.WriteString(line)
	}
}

func (c captureCase) compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		mustWrite(t, file, got)
	}
	want := string(must(os.ReadFile(file))(t))
	if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("(-want +got; go test ./cmd/trunktap -run CapturesGolden -update rewrites)\n%s", d)
	}
}

// check compares both channels with what was said on them, and where nothing was
// said demands that nothing is heard.
func (c captureCase) check(t *testing.T, s *generated, m *recorder.Manifest, pcm [2][]int16) {
	t.Helper()
	begin := m.Origin.Sub(captureStart) // where the recording begins in the scene
	c.checkTyped(t, s.typed, m.DTMF, begin)
	for ch := range pcm {
		h := hearing{pcm: pcm[ch], rate: m.SampleRate, begin: begin.Seconds()}
		spoken := make([]bool, len(h.pcm))
		for _, w := range s.said[ch] {
			h.listen(w)
			h.mark(spoken, w)
		}
		if len(s.said[ch]) == 0 {
			h.xx, h.yy, h.xy = 1e9, 1e9, 1e9 // there is nothing to be unlike
		}
		t.Logf("channel %d: up to %+.1f ms off, correlation %.4f, %.1f dB", ch, h.worst*1e3, h.correlation(), h.snr())
		if off := math.Abs(h.worst); off > c.within.Seconds() || h.correlation() < c.correlation || h.snr() < c.ratio(ch) {
			t.Errorf("channel %d is not what was said there, or not in its place: %s", ch, strings.Join(h.told, "; "))
		}
		for i, is := range spoken {
			if v := h.pcm[i]; !is && (v > 200 || v < -200) {
				t.Errorf("channel %d: %d at %.3f s of the call, where nobody speaks", ch, v, h.begin+float64(i)/float64(h.rate))
				break
			}
		}
	}
}

// ratioOfPCMU is what PCMU leaves, in dB. The PBX speaks nothing else.
const ratioOfPCMU = 35

// ratio is the least that a channel must have, in dB.
func (c captureCase) ratio(ch int) float64 {
	switch {
	case c.snr == 0:
		return math.Inf(-1)
	case ch == 1:
		return min(c.snr, ratioOfPCMU)
	}
	return c.snr
}

// checkTyped holds that all keys, and no others, are noted with the time at which they
// went down.
func (captureCase) checkTyped(t *testing.T, want []typing, got []recorder.Digit, begin time.Duration) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d keys noted, %d pressed: %+v", len(got), len(want), got)
		return
	}
	for i, w := range want {
		off := time.Duration(got[i].RealMS)*time.Millisecond - (w.at - begin)
		if got[i].Digit != w.digit || got[i].Channel != w.side || off.Abs() > 2*ms {
			t.Errorf("key %d noted as %+v, pressed %+v after %v", i, got[i], w, w.at-begin)
		}
	}
}

// hearing compares a channel with what was said on it.
type hearing struct {
	pcm    []int16
	rate   int
	begin  float64 // s, of its first sample
	worst  float64 // s, the farthest that anything is from its place
	told   []string
	xx, yy float64 // energies of what was said and heard, at the best place of each
	xy, dd float64 // their product, their difference
}

const (
	hearingPiece = 0.5   // s, whose place is looked for
	hearingRange = 0.040 // s, to both sides
	hearingEdge  = 0.025 // s, left out at both ends of what is said
	hearingSure  = 0.8   // correlation, from which on the place of a piece is no chance
	hearingNear  = 60.0  // correlation that a place must be better for a second of distance
	hearingTail  = 0.120 // s, in which concealment and filters die away
)

// listen looks for the place of each piece of what was said.
func (h *hearing) listen(w saying) {
	from, to := w.from.Seconds()+hearingEdge, w.to.Seconds()-hearingEdge
	pieces := max(1, int((to-from)/hearingPiece+0.2))
	for i := range pieces {
		h.piece(w.ref, from+(to-from)*float64(i)/float64(pieces), from+(to-from)*float64(i+1)/float64(pieces))
	}
}

func (h *hearing) piece(ref func(float64) float64, from, to float64) {
	rate := float64(h.rate)
	first, n := int(math.Round((from-h.begin)*rate)), int((to-from)*rate)
	x := make([]float64, n)
	for i := range x {
		x[i] = ref(h.begin + float64(first+i)/rate)
	}
	at, most := 0, -2.0 // a voice is like itself one pitch period later: of two such places the near one is meant
	step := max(1, h.rate/8000)
	for lag := -int(hearingRange * rate); lag <= int(hearingRange*rate); lag += step {
		sums, xx := h.against(x, first+lag, step)
		if r := sums[0]/math.Sqrt(xx*sums[1]+1) - hearingNear*math.Abs(float64(lag))/rate; r > most+1e-9 {
			at, most = lag, r
		}
	}
	sums, xx := h.against(x, first+at, 1)
	h.xy, h.xx, h.yy, h.dd = h.xy+sums[0], h.xx+xx, h.yy+sums[1], h.dd+sums[2]
	off := float64(at) / rate
	h.told = append(h.told, fmt.Sprintf("%.2f s %+.1f ms %.3f", from, off*1e3, most))
	if most > hearingSure && math.Abs(off) > math.Abs(h.worst) {
		h.worst = off
	}
}

// against gives sums of the products with, of the energy of and of the difference from
// what is heard from a sample on, and the energy of x.
func (h *hearing) against(x []float64, first, step int) (sums [3]float64, xx float64) {
	for i := 0; i < len(x); i += step {
		y := 0.0
		if k := first + i; k >= 0 && k < len(h.pcm) {
			y = float64(h.pcm[k])
		}
		sums[0] += x[i] * y
		sums[1] += y * y
		sums[2] += (x[i] - y) * (x[i] - y)
		xx += x[i] * x[i]
	}
	return sums, xx
}

func (h *hearing) correlation() float64 { return h.xy / math.Sqrt(h.xx*h.yy+1) }

func (h *hearing) snr() float64 { return 10 * math.Log10((h.xx+1)/(h.dd+1)) }

// mark notes where something may be heard because of w.
func (h *hearing) mark(spoken []bool, w saying) {
	for i := range spoken {
		t := h.begin + float64(i)/float64(h.rate)
		spoken[i] = spoken[i] || t > w.from.Seconds()-hearingTail && t < w.to.Seconds()+hearingTail
	}
}

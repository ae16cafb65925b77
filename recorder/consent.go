package recorder

import (
	"math"
	"slices"

	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/suppress"
)

// consentState is what is known of the consent to a recording.
type consentState uint8

const (
	consentUnasked consentState = iota
	consentPending              // required, and neither granted nor denied
	consentGranted
	consentDenied
)

// String returns the manifest's word.
func (s consentState) String() string {
	return [...]string{"", "none", "granted", "denied"}[s]
}

// consented follows what a signal of consent did to the timeline, which knows
// the order of several.
func (r *recording) consented(sig suppress.Signal) {
	if sig.Event != suppress.ConsentGranted && sig.Event != suppress.ConsentDenied {
		return
	}
	at := int64(math.MaxInt64)
	if r.begun {
		at = max(r.realMSOf(max(r.now, r.ns(sig.At)))+1, r.sealedMS) // behind what the signal changed
	}
	refused := slices.Contains(r.timeline.Reasons(at), suppress.ReasonConsent)
	switch {
	case !refused:
		r.consent = consentGranted
		r.preroll.release(r)
	case sig.Event == suppress.ConsentDenied:
		r.consent = consentDenied
		r.preroll.wipe(r)
	}
}

// prerollChunksMax bounds what is held: ten minutes.
const prerollChunksMax = 10 * 60 * 1000 / chunkMS

// blockChunks is how many chunks share a block of locked memory: a second.
const blockChunks = 1000 / chunkMS

// preroll holds sealed chunks of a recording until consent is decided. Their
// samples lie in memory of the vault and nowhere else.
type preroll struct {
	on       bool
	failed   error // why there was no memory; told once
	deadline int64 // ns
	blocks   [][]int16
	held     []heldChunk
}

// heldChunk is a chunk whose samples lie in a block.
type heldChunk struct {
	fromMS, toMS int64 // on the call's timeline
	marks        [2][]mix.Mark
	resolved     [2][]mix.Resolution
	blends       [2][]blend
	detail       [2]string
	refused      [2]*refusedList
}

// begin holds from now on, for as long after the call's origin as the plan says.
func (p *preroll) begin(r *recording, originNS int64) {
	wait := min(int64(r.plan.ConsentTimeout), math.MaxInt64-originNS)
	p.on, p.deadline = true, originNS+wait
}

func (p *preroll) heldMS() int64 {
	if len(p.held) == 0 {
		return 0
	}
	return p.held[len(p.held)-1].toMS - p.held[0].fromMS
}

// tick wipes what was held too long.
func (r *recording) tick(now int64) {
	r.now = now
	if r.preroll.on && now >= r.preroll.deadline {
		r.preroll.wipe(r)
	}
}

// slot is where the samples of the i-th chunk lie.
func (p *preroll) slot(r *recording, i int) (a, b []int16) {
	n := int(chunkMS * r.perMS)
	at := i % blockChunks * 2 * n
	s := p.blocks[i/blockChunks][at : at+2*n]
	return s[:n], s[n:]
}

// hold keeps a chunk. False when there is no memory for it: then what is held
// is wiped too, and the recording begins with the consent like one without a
// preroll.
func (p *preroll) hold(r *recording, k *chunk) bool {
	from, to := max(k.fromMS, r.offsetMS), k.toMS
	if to <= from {
		return true
	}
	i := len(p.held)
	if i == len(p.blocks)*blockChunks {
		block, err := r.vault.take(int(blockChunks * 2 * chunkMS * r.perMS))
		if err != nil || i >= prerollChunksMax {
			r.vault.give(block)
			p.wipe(r)
			r.account.refuse("consent_preroll")
			p.failed = err
			return false
		}
		p.blocks = append(p.blocks, block)
	}
	a, b := p.slot(r, i)
	skip := (from - k.fromMS) * r.perMS
	copy(a, k.pcm[0][skip:])
	copy(b, k.pcm[1][skip:])
	h := heldChunk{fromMS: from, toMS: to, detail: k.detail, refused: k.refused}
	for c := range k.marks {
		h.marks[c], h.resolved[c], h.blends[c] = slices.Clone(k.marks[c]), slices.Clone(k.resolved[c]), slices.Clone(k.blends[c])
	}
	p.held = append(p.held, h)
	return true
}

// release lets what is held take the way that it would have taken.
func (p *preroll) release(r *recording) {
	if w, ok := r.out.(interface{ released(on bool) }); ok {
		w.released(true)
		defer w.released(false)
	}
	p.empty(r, true)
}

// wipe forgets what is held: the time passes without it.
func (p *preroll) wipe(r *recording) { p.empty(r, false) }

func (p *preroll) empty(r *recording, keep bool) {
	if !p.on {
		return
	}
	held, blocks := p.held, p.blocks
	for i, h := range held {
		a, b := p.slot(r, i)
		k := chunk{fromMS: h.fromMS, toMS: h.toMS, pcm: [2][]int16{a, b}}
		if keep {
			k.marks, k.resolved, k.blends, k.detail, k.refused = h.marks, h.resolved, h.blends, h.detail, h.refused
		} else {
			clear(a)
			clear(b)
		}
		r.process(&k)
	}
	p.on, p.held, p.blocks = false, nil, nil
	for _, b := range blocks {
		r.vault.give(b)
	}
}

// drop forgets what is held of a recording that is given up.
func (p *preroll) drop(r *recording) {
	for _, b := range p.blocks {
		r.vault.give(b)
	}
	*p = preroll{}
}

// vault gives memory that is never written to a disk, not even by the system.
type vault interface {
	take(samples int) ([]int16, error)
	give([]int16) // wiped before anybody else gets it
}

// plainMemory is a vault for replay, where the audio lies in a file anyhow.
type plainMemory struct{}

func (plainMemory) take(samples int) ([]int16, error) { return make([]int16, samples), nil }
func (plainMemory) give(b []int16)                    { clear(b) }

package evidence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
)

// Faults that verifying a bundle finds.
const (
	FaultForm      = "form"      // the container is altered, cut off, or none
	FaultMissing   = "missing"   // a file that must be there is not
	FaultAltered   = "altered"   // content differs from what was signed or listed
	FaultSignature = "signature" // a signature does not fit, or its key is not the one that was given
	FaultProof     = "proof"     // the entry is not in the log that the checkpoint is of
)

// Finding is one thing that is wrong with a bundle.
type Finding struct {
	File   string `json:"file,omitempty"`
	Fault  string `json:"fault"`
	Detail string `json:"detail"`
}

// String returns the finding as a line of text.
func (f Finding) String() string {
	if f.File == "" {
		return f.Fault + ": " + f.Detail
	}
	return f.File + ": " + f.Fault + ": " + f.Detail
}

// Report is the result of Verify.
type Report struct {
	Recording  string    `json:"recording"`
	Node       string    `json:"node,omitempty"`
	Key        string    `json:"key,omitempty"` // that signed its link, name+id+base64
	Pinned     bool      `json:"pinned"`        // the key that was given is one of the bundle's
	Link       int64     `json:"link,omitempty"`
	Log        string    `json:"log,omitempty"`
	Entry      int64     `json:"entry,omitempty"`
	Checkpoint time.Time `json:"checkpoint,omitzero"` // when the log was signed with it
	Files      int       `json:"files"`
	Bytes      int64     `json:"bytes"`
	Segments   int       `json:"segments"`
	Findings   []Finding `json:"findings"`            // never nil
	Notes      []Finding `json:"notes,omitempty"`     // worth knowing, and no damage
	Unvouched  int       `json:"unvouched,omitempty"` // files to listen to that nobody signed for: they may be anything
}

// OK tells whether nothing was found; what nobody signed for is Unvouched.
func (r Report) OK() bool { return len(r.Findings) == 0 }

// paperBytesMax bounds what is read into memory of a file that is not audio.
const paperBytesMax = 17 << 20

func paperMax(name string) int64 {
	if strings.HasPrefix(name, keysDir) {
		return 16 << 10
	}
	return paperBytesMax
}

// verification is one run of Verify.
type verification struct {
	Report
	r      io.ReaderAt
	papers map[string][]byte
	sums   map[string]string // of every file, hex
	ring   *audit.Ring
	link   *audit.Link
	m      *recorder.Manifest

	vouched bool // the list of files is signed
}

// Verify checks a bundle: every byte of it is compared with what was signed, or
// with what follows from that. Key is a public key (name+id+base64) that must be
// among the bundle's; empty: the bundle's own word is taken, which a note says.
// The error tells that the file could not be read.
func Verify(ctx context.Context, r io.ReaderAt, size int64, key string) (Report, error) {
	v := &verification{r: r, papers: map[string][]byte{}, sums: map[string]string{}, Report: Report{Findings: []Finding{}}}
	entries, err := readZip(r, size)
	var form *formError
	switch {
	case errors.As(err, &form):
		v.findf("", FaultForm, "%v", err)
		return v.Report, nil
	case err != nil:
		return v.Report, fmt.Errorf("verify bundle: %w", err)
	}
	for _, e := range entries {
		if err := v.read(ctx, e); err != nil {
			return v.Report, fmt.Errorf("verify bundle: %s: %w", e.name, err)
		}
	}
	v.listed(entries)
	v.keys(key)
	v.manifest()
	v.signedSums(entries)
	v.signed()
	if key != "" && v.link == nil && !v.vouched {
		v.findf("", FaultSignature, "nothing in it is signed by a key of the bundle: anybody can put a public key beside what he made up")
	}
	v.proved()
	v.audio(entries)
	return v.Report, nil
}

func (v *verification) findf(file, fault, format string, args ...any) {
	v.Findings = append(v.Findings, Finding{file, fault, fmt.Sprintf(format, args...)})
}

func (v *verification) notef(file, fault, format string, args ...any) {
	v.Notes = append(v.Notes, Finding{file, fault, fmt.Sprintf(format, args...)})
}

// read takes the sums of a file, and its content when it is small.
func (v *verification) read(ctx context.Context, e entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v.Files++
	v.Bytes += e.size
	h, c := sha256.New(), crc32.NewIEEE()
	w := io.MultiWriter(h, c)
	if !strings.HasPrefix(e.name, audioDir) && !strings.HasPrefix(e.name, playablePrefix) {
		if most := paperMax(e.name); e.size > most {
			v.findf(e.name, FaultForm, "%d bytes: at most %d", e.size, most)
			return nil
		}
		b, err := io.ReadAll(e.open(v.r))
		if err != nil {
			return err
		}
		v.papers[e.name] = b
		_, _ = w.Write(b) // never fails
	} else if _, err := io.Copy(w, e.open(v.r)); err != nil {
		return err
	}
	if c.Sum32() != e.crc {
		v.findf(e.name, FaultAltered, "its content does not fit the container's checksum")
	}
	v.sums[e.name] = hex.EncodeToString(h.Sum(nil))
	return nil
}

// listed compares the files with the list.
func (v *verification) listed(entries []entry) {
	var want strings.Builder
	for _, e := range entries {
		if e.name != sumsFile && e.name != sumsSigFile {
			fmt.Fprintf(&want, "%s  %s\n", v.sums[e.name], e.name)
		}
	}
	got, ok := v.papers[sumsFile]
	if !ok {
		v.findf(sumsFile, FaultMissing, "the list of files is not there")
		return
	}
	if string(got) == want.String() {
		return
	}
	is, should := lines(want.String()), lines(string(got))
	for i := range max(len(is), len(should)) {
		switch {
		case i >= len(is):
			v.findf(sumsFile, FaultMissing, "it lists %q, which is not there", clip(should[i]))
		case i >= len(should) || is[i] != should[i]:
			_, name, _ := strings.Cut(is[i], "  ")
			v.findf(name, FaultAltered, "it is not what %s lists in line %d", sumsFile, i+1)
		default:
			continue
		}
		return // what follows from it is no news
	}
}

func lines(s string) []string { return strings.Split(strings.TrimSuffix(s, "\n"), "\n") }

func clip(s string) string { return s[:min(len(s), 100)] }

// keys reads the public keys and compares them with the one that was given.
func (v *verification) keys(pin string) {
	var statements [][]byte
	for i := 1; ; i++ {
		s, ok := v.papers[fmt.Sprintf("%s%04d.txt", keysDir, i)]
		if !ok {
			break
		}
		statements = append(statements, s)
	}
	if len(statements) == 0 {
		if pin != "" {
			v.findf(keysDir, FaultMissing, "no public key is there")
		}
		return
	}
	ring, err := audit.ParseRing(statements)
	if err != nil {
		v.findf(keysDir, FaultSignature, "%v", err)
		return
	}
	v.ring, v.Node = ring, ring.Node
	for _, k := range ring.Keys {
		name := fmt.Sprintf("%s%04d-%s.pem", keysDir, k.Number, k.ID)
		if !bytes.Equal(v.papers[name], k.PEM()) {
			v.findf(name, FaultAltered, "it is not the key of its statement")
		}
	}
	if v.Pinned = pin != "" && ring.Has(pin) && strings.Contains(pin, "+"); pin != "" && !v.Pinned {
		v.findf(keysDir, FaultSignature, "the key that was given is none of the bundle's")
	}
	if pin == "" {
		v.notef(keysDir, FaultSignature, "no key was given: the bundle's own word is taken for whose it is")
	}
}

func (v *verification) manifest() {
	b, ok := v.papers[manifestFile]
	if !ok {
		v.findf(manifestFile, FaultMissing, "it is not there")
		return
	}
	m := &recorder.Manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		v.findf(manifestFile, FaultAltered, "%v", err)
		return
	}
	v.m, v.Recording, v.Segments = m, m.ID, len(m.Segments)
}

// signed checks the link of the recording.
func (v *verification) signed() {
	text, ok := v.papers[linkFile]
	if !ok {
		if v.papers[entryFile] != nil || v.papers[proofFile] != nil || v.papers[linkSigFile] != nil {
			v.findf(linkFile, FaultMissing, "it is not there")
			return
		}
		v.notef("", FaultSignature, "the recording was published without a signature: only this bundle says what it is")
		return
	}
	if v.ring == nil {
		v.findf(linkFile, FaultSignature, "there is no public key to check it with")
		return
	}
	key, ok := v.fits(string(text), v.papers[linkSigFile])
	if !ok {
		v.findf(linkFile, FaultSignature, "%s is not its signature by a key of node %s", linkSigFile, v.ring.Node)
		return
	}
	l, err := audit.ParseLink(string(text))
	if err != nil {
		v.findf(linkFile, FaultAltered, "%v", err)
		return
	}
	v.link, v.Key, v.Link, v.Entry, v.Log = l, key, l.Seq, l.Entry, l.Node+"/"+l.Epoch
	switch {
	case v.m == nil: // told
	case l.ManifestSHA256 != v.sums[manifestFile]:
		v.findf(manifestFile, FaultAltered, "its SHA-256 is not the one that was signed in %s", linkFile)
	case l.Recording != v.m.ID || l.Node != v.ring.Node:
		v.findf(linkFile, FaultAltered, "it is that of recording %s of node %s", l.Recording, l.Node)
	}
}

// fits tells which key of the ring signed a text.
func (v *verification) fits(text string, sig []byte) (vkey string, ok bool) {
	if len(sig) != 64 {
		return "", false
	}
	for _, k := range v.ring.Keys {
		note, err := v.ring.Join(text, k.ID, sig)
		if err != nil {
			continue
		}
		if _, _, _, err := v.ring.Open(note); err == nil {
			return k.VKey, true
		}
	}
	return "", false
}

// signedSums checks the signature of the list, which alone vouches for the sound that
// is made for listening: the manifest has the sums of segments.
func (v *verification) signedSums(entries []entry) {
	sig, ok := v.papers[sumsSigFile]
	if !ok {
		v.notef(sumsFile, FaultSignature, "the list of files is not signed: what is not named by %s is not vouched for", linkFile)
		for _, e := range entries {
			if strings.HasPrefix(e.name, playablePrefix) {
				v.Unvouched++
				v.notef(e.name, FaultSignature, "NOT VOUCHED FOR: nobody has signed what it is; listen to the files of %s, which the manifest names", audioDir)
			}
		}
		return
	}
	if v.ring == nil {
		v.findf(sumsSigFile, FaultSignature, "there is no public key to check it with")
		return
	}
	if _, ok := v.fits(string(v.papers[sumsFile]), sig); !ok {
		v.findf(sumsSigFile, FaultSignature, "it is not the signature of %s by a key of node %s", sumsFile, v.ring.Node)
		return
	}
	v.vouched = true
}

// proved checks the place of the link in the log.
func (v *verification) proved() {
	line, proof := v.papers[entryFile], v.papers[proofFile]
	if line == nil && proof == nil {
		if v.link != nil {
			v.notef(entryFile, FaultProof, "its place in the audit log is not proved")
		}
		return
	}
	if v.link == nil || v.ring == nil {
		return // told
	}
	e, err := audit.ParseEntry(line)
	if err != nil || e.Link == nil || e.Link.SHA256 != v.link.SHA256 || e.N != v.link.Entry || e.Recording != v.link.Recording {
		v.findf(entryFile, FaultAltered, "it is not the entry of %s", linkFile)
		return
	}
	if proof == nil {
		v.notef(proofFile, FaultProof, "its place in the audit log is not proved")
		return
	}
	p, err := audit.ParseProof(proof)
	if err != nil {
		v.findf(proofFile, FaultProof, "%v", err)
		return
	}
	c, err := p.Check(v.ring, line)
	switch {
	case errors.Is(err, audit.ErrSignature):
		v.findf(proofFile, FaultSignature, "%v", err)
	case err != nil || p.Index != e.N || c.Epoch != v.link.Epoch:
		v.findf(proofFile, FaultProof, "entry %d is not in the log of the checkpoint", e.N)
	default:
		v.Checkpoint = c.At
	}
	text, _, sig, err := v.ring.Open(p.Checkpoint)
	if err == nil && (text != string(v.papers[pointFile]) || !bytes.Equal(sig, v.papers[pointSigFile])) {
		v.findf(pointFile, FaultAltered, "it is not the checkpoint of %s", proofFile)
	}
}

// audio compares the sound with what the manifest says of it.
func (v *verification) audio(entries []entry) {
	if v.m == nil {
		return
	}
	var known []string
	for _, s := range v.m.Segments {
		name := audioName(v.m, s)
		known = append(known, name)
		sum, ok := v.sums[name]
		switch {
		case !ok:
			v.findf(name, FaultMissing, "the manifest names it")
		case s.AudioSHA256 == "":
			v.notef(name, FaultAltered, "made before the sum of the sound was signed with the recording: only this bundle vouches for it")
		case sum != s.AudioSHA256:
			v.findf(name, FaultAltered, "its SHA-256 is not the one in the manifest (audio_sha256)")
		}
	}
	for _, e := range entries {
		if strings.HasPrefix(e.name, audioDir) && !slices.Contains(known, e.name) {
			v.findf(e.name, FaultAltered, "the manifest does not name it")
		}
	}
}

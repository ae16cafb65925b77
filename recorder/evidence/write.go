package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
)

// Files of a bundle, in their order; between them stand keys/, audio/ and the
// recording as one file.
const (
	readmeFile   = "README.txt"
	manifestFile = "manifest.json"
	linkFile     = "link.txt"
	linkSigFile  = "link.sig"
	entryFile    = "entry.json"
	proofFile    = "proof.txt"
	pointFile    = "checkpoint.txt"
	pointSigFile = "checkpoint.sig"
	logFile      = "log.jsonl"
	sumsFile     = "SHA256SUMS"
	sumsSigFile  = "SHA256SUMS.sig"
)

// Content is what a bundle is made of.
type Content struct {
	Manifest []byte      // its JSON, as it was sealed
	Link     []byte      // signed; nil: it has none
	Ring     *audit.Ring // whose link it is; nil: without keys
	Entry    []byte      // the entry of the link; nil: it is not at hand
	Proof    *audit.Proof
	Log      [][]byte // further entries that name the recording

	// Audio writes the coded audio of a segment of the manifest.
	Audio func(w io.Writer, s recorder.Segment) error
	// Playable writes the recording as one file with this extension (.wav, .ogg, .flac).
	Playable    func(w io.Writer) error
	PlayableExt string

	// Sign signs the list of all files; nil: nobody does.
	Sign func(text string) ([]byte, error)
}

// audioExt is what the coded audio of a format is called.
func audioExt(format string) string {
	switch format {
	case codec.WAVPCM16:
		return ".s16le"
	case codec.WAVPCMU:
		return ".ulaw"
	case codec.WAVPCMA:
		return ".alaw"
	case codec.OggOpus:
		return ".opus-packets"
	case codec.FLAC:
		return ".flac-frames"
	}
	return ".coded"
}

func audioName(m *recorder.Manifest, s recorder.Segment) string {
	format := s.Format
	if format == "" {
		format = m.Format
	}
	return fmt.Sprintf("%s%04d%s", audioDir, s.N, audioExt(format))
}

// bundler writes a bundle.
type bundler struct {
	zip  zipWriter
	sums strings.Builder
}

// file writes a file and lists it.
func (b *bundler) file(name string, f func(io.Writer) error) error {
	h := sha256.New()
	err := b.zip.file(name, func(w io.Writer) error { return f(io.MultiWriter(w, h)) })
	if err != nil {
		return fmt.Errorf("bundle %s: %w", name, err)
	}
	fmt.Fprintf(&b.sums, "%s  %s\n", hex.EncodeToString(h.Sum(nil)), name)
	return nil
}

func (b *bundler) bytes(name string, content []byte) error {
	return b.file(name, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// Write writes a bundle. The same content gives the same bytes.
func Write(w io.Writer, c Content) error {
	b := &bundler{zip: zipWriter{w: w}}
	var m recorder.Manifest
	if err := json.Unmarshal(c.Manifest, &m); err != nil {
		return fmt.Errorf("bundle: read manifest: %w", err)
	}
	if err := b.papers(c, &m); err != nil {
		return err
	}
	for _, s := range m.Segments {
		if err := b.file(audioName(&m, s), func(w io.Writer) error { return c.Audio(w, s) }); err != nil {
			return err
		}
	}
	if c.Playable != nil {
		if err := b.file(playableBase+c.PlayableExt, c.Playable); err != nil {
			return err
		}
	}
	sums := b.sums.String()
	if err := b.bytes(sumsFile, []byte(sums)); err != nil {
		return err
	}
	if c.Sign != nil {
		sig, err := c.Sign(sums)
		if err != nil {
			return fmt.Errorf("bundle: sign: %w", err)
		}
		if err := b.bytes(sumsSigFile, sig); err != nil {
			return err
		}
	}
	if err := b.zip.close(); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	return nil
}

// papers writes what is not audio.
func (b *bundler) papers(c Content, m *recorder.Manifest) error {
	var errs []error
	add := func(name string, content []byte) { errs = append(errs, b.bytes(name, content)) }
	add(readmeFile, []byte(readme(c, m)))
	add(manifestFile, c.Manifest)
	if c.Link != nil && c.Ring != nil {
		text, _, sig, err := c.Ring.Open(c.Link)
		if err != nil {
			return fmt.Errorf("bundle: link: %w", err)
		}
		add(linkFile, []byte(text))
		add(linkSigFile, sig)
	}
	if c.Entry != nil {
		add(entryFile, c.Entry)
	}
	if c.Proof != nil {
		text, _, sig, err := c.Ring.Open(c.Proof.Checkpoint)
		if err != nil {
			return fmt.Errorf("bundle: checkpoint: %w", err)
		}
		add(proofFile, c.Proof.Text())
		add(pointFile, []byte(text))
		add(pointSigFile, sig)
	}
	if c.Log != nil {
		add(logFile, append(bytes.Join(c.Log, []byte("\n")), '\n'))
	}
	if c.Ring != nil {
		for _, k := range c.Ring.Keys {
			add(fmt.Sprintf("%s%04d.txt", keysDir, k.Number), []byte(k.Statement))
			add(fmt.Sprintf("%s%04d-%s.pem", keysDir, k.Number, k.ID), k.PEM())
		}
	}
	return errors.Join(errs...)
}

func readme(c Content, m *recorder.Manifest) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Evidence bundle of recording %s\n\n", m.ID)
	fmt.Fprintf(&b, "A telephone call from %s to %s, begun %s.\n\n", m.Call.From, m.Call.To, m.Call.Start.UTC().Format("2 January 2006 15:04:05 MST"))
	b.WriteString(readmeFiles)
	switch {
	case c.Link == nil:
		b.WriteString(readmeUnsigned)
	case c.Proof == nil:
		b.WriteString(readmeUnproved)
	}
	if c.Ring != nil {
		k := c.Ring.Active()
		fmt.Fprintf(&b, "\nThe recorder is called %q. The key that signs for it now, number %d, is\n\n    %s\n\n", c.Ring.Node, k.Number, k.VKey)
		b.WriteString("Ask whoever runs the recorder for this key by another way than this file, and compare: who made up the file could have made up the key.\n")
	}
	b.WriteString(readmeHow)
	return b.String()
}

const readmeUnsigned = `
NOT SIGNED: the recorder published this recording without a signature. Only this bundle says what it is.
`

const readmeUnproved = `
NOT PROVED: that the recorder's audit log has this recording. The log was not at hand when the bundle was made; what the recorder
signed of the recording itself, link.txt, is here.
`

const readmeFiles = `What the files are

recording.*      the whole recording, to listen to; silence stands where the manifest names a gap
audio/           the sound of each stored segment, decrypted and otherwise as it was stored
manifest.json    the account of the recording: parties, times, what was left out and why, and the SHA-256 of each segment's sound (audio_sha256)
link.txt         what the recorder signed when it published the recording: the SHA-256 of manifest.json, and its place in a chain of all recordings
link.sig         the Ed25519 signature of link.txt
entry.json       the line of the recorder's audit log that has the SHA-256 of link.txt
checkpoint.txt   what the recorder signed about its whole audit log soon afterwards; checkpoint.sig is the signature
proof.txt        shows that entry.json is in the log that checkpoint.txt is about (RFC 6962, section 2.1.1)
log.jsonl        further lines of the log about this recording, if they were asked for
keys/            the recorder's public keys; each vouches for the next one
SHA256SUMS       the SHA-256 of every file; SHA256SUMS.sig is the recorder's signature when the bundle was made
`

const readmeHow = `
How to verify

    trunktap verify FILE.zip --key KEY

names everything that is missing or altered. It needs this file and the key, no network and no configuration.

By hand, with tools that every Unix has:

    sha256sum -c SHA256SUMS
    openssl pkeyutl -verify -pubin -inkey keys/NUMBER-ID.pem -rawin -in link.txt -sigfile link.sig
    openssl pkeyutl -verify -pubin -inkey keys/NUMBER-ID.pem -rawin -in checkpoint.txt -sigfile checkpoint.sig
    sha256sum manifest.json        the line "manifest" of link.txt
    sha256sum audio/*              audio_sha256 of the segments in manifest.json
    sha256sum link.txt             "sha256" in entry.json
`

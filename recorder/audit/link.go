package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// FilesMax is how many files a link lists; of a recording with more it has the
// number and the hash of the list.
const FilesMax = 4096

// File is a stored object of a recording, besides its manifest.
type File struct {
	Name   string
	Bytes  int64
	SHA256 string // of its stored bytes, hex
}

// Claim is what a node says of a recording when it publishes its manifest.
type Claim struct {
	Recording string
	Prefix    string // folder in the store
	Trunk     string
	Start     time.Time // of the call

	ManifestSHA256 string // of the manifest's JSON as it was sealed, hex
	SealedSHA256   string // of the stored bytes of the manifest, its link left out, hex
	SealedBytes    int64
	Files          []File // in the manifest's order

	Replaces string // hash of the link that this one replaces, hex; empty: none is known
	Reason   string // why; see the constants
}

// Reasons of links.
const (
	ReasonRecorded  = "recorded"  // the call ended
	ReasonRecovered = "recovered" // a crash cut it off
	ReasonEncoded   = "encoded"   // its audio was coded anew
	ReasonAdopted   = "adopted"   // it was published while the log could not be written
	ReasonRewritten = "rewritten" // for a reason that stands in the log beside it
	ReasonSetAside  = "set-aside" // its predecessor was not readable
	ReasonShredded  = "shredded"  // its key was destroyed: the link is that of the tombstone
	zeroHash        = "0000000000000000000000000000000000000000000000000000000000000000"
)

// Link is a claim in its place in the chain of a node.
type Link struct {
	Claim
	Node  string
	Epoch string    // of the log
	Entry int64     // index in the log
	Seq   int64     // in the chain, from 1
	Prev  string    // hash of the link before it, hex; zeros: it is the first of its log
	At    time.Time // when it was made

	FileCount  int
	FilesHash  string // SHA-256 of the lines of all files, hex
	SHA256     string // of the text, hex
	SignedText string // the text itself
	Key        string // id of the key that signed it
	Signature  []byte
}

const linkHead = "trunktap link 1\n"

func fileLine(f File) string { return fmt.Sprintf("file: %s %d %s\n", f.Name, f.Bytes, f.SHA256) }

func filesHash(files []File) string {
	h := sha256.New()
	for _, f := range files {
		_, _ = h.Write([]byte(fileLine(f))) // never fails
	}
	return hex.EncodeToString(h.Sum(nil))
}

// SameFiles tells whether the link speaks of these files.
func (l *Link) SameFiles(files []File) bool {
	return len(files) == l.FileCount && filesHash(files) == l.FilesHash
}

func (l *Link) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%snode: %s\nepoch: %s\nentry: %d\nseq: %d\nprev: %s\nat: %s\n", linkHead, l.Node, l.Epoch, l.Entry, l.Seq, l.Prev, l.At.Format(time.RFC3339Nano))
	fmt.Fprintf(&b, "recording: %s\nprefix: %s\ntrunk: %s\nstart: %s\nreason: %s\n", l.Recording, l.Prefix, l.Trunk, l.Start.Format(time.RFC3339Nano), l.Reason)
	if l.Replaces != "" {
		fmt.Fprintf(&b, "replaces: %s\n", l.Replaces)
	}
	fmt.Fprintf(&b, "manifest: %s\nsealed: %d %s\nfiles: %d %s\n", l.ManifestSHA256, l.SealedBytes, l.SealedSHA256, l.FileCount, l.FilesHash)
	for _, f := range l.Files {
		b.WriteString(fileLine(f))
	}
	return b.String()
}

// finish fills in what follows from the rest.
func (l *Link) finish() {
	l.At, l.Start = l.At.UTC().Round(0), l.Start.UTC().Round(0)
	l.Trunk = oneLine(l.Trunk, 128)
	l.FileCount, l.FilesHash = len(l.Files), filesHash(l.Files)
	if len(l.Files) > FilesMax {
		l.Files = nil
	}
	l.SignedText = l.text()
	l.SHA256 = hexSum([]byte(l.SignedText))
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// oneLine keeps a value of outside on one line of at most max bytes.
func oneLine(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, s)
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max], "")
	}
	return s
}

// OpenLink checks the signature of a link and reads it. ErrSignature; other
// errors say that a node signed what is no link.
func (r *Ring) OpenLink(signed []byte) (*Link, error) {
	text, key, sig, err := r.Open(signed)
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	l, err := ParseLink(text)
	if err != nil {
		return nil, err
	}
	if l.Node != r.Node {
		return nil, fmt.Errorf("link: it is that of node %s: %w", l.Node, ErrSignature)
	}
	l.Key, l.Signature = key, sig
	return l, nil
}

// LinkText returns the text of a signed link without checking its signature.
func LinkText(signed []byte) (string, error) {
	text, _, ok := strings.Cut(string(signed), "\n\n")
	if !ok {
		return "", errors.New("link: it is no signed note")
	}
	return text + "\n", nil
}

// ParseLink reads the text of a link.
func ParseLink(text string) (*Link, error) {
	f, err := parseFields(text, linkHead)
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	l := &Link{Node: f.one("node"), Epoch: f.one("epoch"), Prev: f.one("prev")}
	l.Entry, l.Seq, l.At = f.integer("entry"), f.integer("seq"), f.time("at", time.RFC3339Nano)
	l.Recording, l.Prefix, l.Trunk, l.Reason = f.one("recording"), f.one("prefix"), f.one("trunk"), f.one("reason")
	l.Start, l.Replaces, l.ManifestSHA256 = f.time("start", time.RFC3339Nano), f.one("replaces"), f.one("manifest")
	if _, err := fmt.Sscanf(f.one("sealed"), "%d %s", &l.SealedBytes, &l.SealedSHA256); err != nil {
		f.fail("sealed", err)
	}
	if _, err := fmt.Sscanf(f.one("files"), "%d %s", &l.FileCount, &l.FilesHash); err != nil {
		f.fail("files", err)
	}
	for _, line := range f.values["file"] {
		var file File
		if _, err := fmt.Sscanf(line, "%s %d %s", &file.Name, &file.Bytes, &file.SHA256); err != nil {
			f.fail("file", err)
		}
		l.Files = append(l.Files, file)
	}
	switch {
	case f.err != nil:
		return nil, fmt.Errorf("link: %w", f.err)
	case len(l.Files) > 0 && !l.SameFiles(l.Files):
		return nil, errors.New("link: its files and their hash differ")
	case l.text() != text:
		return nil, errors.New("link: it is not in its one form")
	}
	l.SignedText, l.SHA256 = text, hexSum([]byte(text))
	return l, nil
}

package siprec

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// node is one element of a document.
type node struct {
	name  string // local name as written
	space string
	attrs []xml.Attr
	chars []byte
	text  string // of this element alone, trimmed
	kids  []*node
	raw   string // the element as it stood; empty when the document breaks off in it
}

// tree reads a document into nodes. What follows the root element is ignored; a
// document that breaks off gives what was read and a fault.
func tree(body []byte) (root *node, fault string, err error) {
	if len(body) > MetadataBytesMax {
		return nil, "", fmt.Errorf("%w: %d bytes, at most %d are taken", ErrTooLarge, len(body), MetadataBytesMax)
	}
	text := toUTF8(body)
	start := bytes.IndexByte(text, '<')
	if start < 0 {
		return nil, "", fmt.Errorf("%w: no element", ErrNotMetadata)
	}
	text = text[start:]
	d := xml.NewDecoder(bytes.NewReader(text))
	d.Strict = false
	d.Entity = nil
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil } // it is UTF-8 by now
	r := reader{decoder: d, text: string(text)}
	return r.read()
}

// reader builds the tree of one document.
type reader struct {
	decoder *xml.Decoder
	text    string
	open    []*node
	starts  []int64
	root    *node
	nodes   int
}

func (r *reader) read() (*node, string, error) {
	for {
		at := r.decoder.InputOffset()
		tok, err := r.decoder.Token()
		if err != nil {
			return r.broken(err)
		}
		switch t := tok.(type) {
		case xml.StartElement:
			if err := r.start(t, at); err != nil {
				return nil, "", err
			}
		case xml.EndElement:
			if r.end() {
				return r.root, "", nil
			}
		case xml.CharData:
			if n := len(r.open); n > 0 {
				r.open[n-1].chars = append(r.open[n-1].chars, t...)
			}
		case xml.Directive:
			return nil, "", ErrEntities
		}
	}
}

// broken ends a document that cannot be read to its end.
func (r *reader) broken(err error) (*node, string, error) {
	if r.root == nil {
		return nil, "", fmt.Errorf("%w: no element", ErrNotMetadata)
	}
	for len(r.open) > 0 {
		n := r.open[len(r.open)-1]
		r.end()
		n.raw = ""
	}
	line, column := r.decoder.InputPos()
	what := "is no XML from there on"
	if errors.Is(err, io.EOF) || strings.Contains(err.Error(), "unexpected EOF") {
		what = "breaks off"
	}
	return r.root, fmt.Sprintf("line %d, column %d: the document %s", line, column, what), nil
}

func (r *reader) start(t xml.StartElement, at int64) error {
	if r.nodes++; r.nodes > metadataNodesMax || len(r.open) >= metadataDepthMax {
		return fmt.Errorf("%w: more than %d elements or %d levels", ErrTooLarge, metadataNodesMax, metadataDepthMax)
	}
	n := &node{name: t.Name.Local, space: t.Name.Space, attrs: t.Copy().Attr}
	if k := len(r.open); k > 0 {
		r.open[k-1].kids = append(r.open[k-1].kids, n)
	} else {
		r.root = n
	}
	r.open, r.starts = append(r.open, n), append(r.starts, at)
	return nil
}

// end closes the innermost element and says whether that was the root.
func (r *reader) end() bool {
	k := len(r.open) - 1
	n := r.open[k]
	n.text, n.chars = strings.TrimSpace(string(n.chars)), nil
	if to := r.decoder.InputOffset(); to > r.starts[k] && to <= int64(len(r.text)) {
		n.raw = r.text[r.starts[k]:to]
	}
	r.open, r.starts = r.open[:k], r.starts[:k]
	return k == 0
}

// toUTF8 brings a document to UTF-8: by its byte order mark, by the zero bytes of
// UTF-16 without one; what is no UTF-8 then is taken as ISO 8859-1.
func toUTF8(b []byte) []byte {
	switch {
	case bytes.HasPrefix(b, []byte{0xEF, 0xBB, 0xBF}):
		b = b[3:]
	case bytes.HasPrefix(b, []byte{0xFE, 0xFF}):
		return fromUTF16(b[2:], 1, 0)
	case bytes.HasPrefix(b, []byte{0xFF, 0xFE}):
		return fromUTF16(b[2:], 0, 1)
	case bytes.HasPrefix(b, []byte{0, '<'}):
		return fromUTF16(b, 1, 0)
	case bytes.HasPrefix(b, []byte{'<', 0}):
		return fromUTF16(b, 0, 1)
	}
	if utf8.Valid(b) {
		return b
	}
	out := make([]byte, 0, len(b)*2)
	for _, c := range b {
		out = utf8.AppendRune(out, rune(c))
	}
	return out
}

// fromUTF16 converts pairs of bytes; low and high say which of the two is which.
func fromUTF16(b []byte, low, high int) []byte {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = uint16(b[2*i+low]) | uint16(b[2*i+high])<<8
	}
	return []byte(string(utf16.Decode(units)))
}

// fold is the form of a name by which dialects are alike: participant_id,
// participantId and participant-id.
func fold(name string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '_' || c == '-':
			return -1
		case 'A' <= c && c <= 'Z':
			return c + 'a' - 'A'
		}
		return c
	}, name)
}

// attr returns the first of the named attributes that is there; names are folded.
func (n *node) attr(names ...string) string {
	for _, name := range names {
		for _, a := range n.attrs {
			if fold(a.Name.Local) == name {
				return clip(a.Value)
			}
		}
	}
	return ""
}

// kid returns the text of the first child of that name.
func (n *node) kid(name string) string {
	for _, k := range n.kids {
		if fold(k.name) == name {
			return clip(k.text)
		}
	}
	return ""
}

// id returns an id that stands as an attribute, or as a child, of those names.
func (n *node) id(names ...string) string {
	if v := n.attr(names...); v != "" {
		return v
	}
	for _, name := range names {
		if v := n.kid(name); v != "" {
			return v
		}
	}
	return ""
}

// clip bounds a value.
func clip(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > metadataValueMax {
		s = strings.ToValidUTF8(s[:metadataValueMax], "")
	}
	return s
}

// extension is n as an element that is not of RFC 7865.
func (n *node) extension() Extension {
	e := Extension{Name: n.name, XML: n.raw}
	n.leaves(&e)
	return e
}

func (n *node) leaves(e *Extension) {
	if len(n.kids) == 0 && n.text != "" && len(e.Values) < metadataItemsMax {
		e.Values = append(e.Values, Value{Name: n.name, Text: clip(n.text)})
	}
	for _, k := range n.kids {
		k.leaves(e)
	}
}

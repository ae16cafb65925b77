package siprec

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/quotedprintable"
	"regexp"
	"strings"
)

// Limits of a body.
const (
	partsMax     = 16
	nestedMax    = 3
	boundaryMax  = 200 // bytes; RFC 2046 says 70, some write more
	typeBytesMax = 128
)

// part is one part of a body.
type part struct {
	typ, disposition string // in lower case, without parameters
	content          []byte
}

// content is what a body brings.
type content struct {
	sdp      []byte // nil: none
	metadata []part
	others   []part
}

// split takes a body apart. It is lenient: parts may come in any order and be of
// another type than their header says, the boundary may be another than announced
// and the last one missing. What a part is shows in its own text.
func split(contentType string, body []byte) content {
	var c content
	c.take(part{typ: mediaType(contentType), content: body}, contentType, 0)
	return c
}

func mediaType(v string) string {
	t, _, _ := strings.Cut(v, ";")
	t = strings.ToLower(strings.TrimSpace(t))
	return t[:min(len(t), typeBytesMax)]
}

func (c *content) take(p part, contentType string, depth int) {
	text := bytes.TrimLeft(p.content, " \t\r\n")
	if len(text) == 0 {
		return
	}
	if strings.HasPrefix(p.typ, "multipart/") || bytes.HasPrefix(text, []byte("--")) {
		if c.multipart(contentType, p.content, depth) {
			return
		}
	}
	switch {
	case bytes.HasPrefix(text, []byte("v=")):
		if c.sdp == nil {
			c.sdp = text
		}
	case isMetadata(p, text):
		if !c.has(p.content) {
			c.metadata = append(c.metadata, p)
		}
	default:
		c.others = append(c.others, p)
	}
}

// has says whether the same metadata was there before: some clients send it twice.
func (c *content) has(text []byte) bool {
	for _, p := range c.metadata {
		if bytes.Equal(bytes.TrimSpace(p.content), bytes.TrimSpace(text)) {
			return true
		}
	}
	return false
}

func isMetadata(p part, text []byte) bool {
	if strings.Contains(p.typ, "rs-metadata") {
		return true
	}
	head := toUTF8(text[:min(len(text), 1024)&^1])
	if !bytes.Contains(head, []byte("<")) {
		return false
	}
	return p.disposition == Disposition || bytes.Contains(bytes.ToLower(head), []byte("recording"))
}

// multipart takes the parts of a body one by one; false when it has none.
func (c *content) multipart(contentType string, body []byte, depth int) bool {
	if depth >= nestedMax {
		return false
	}
	boundary := boundaryOf(contentType, body)
	if boundary == "" {
		return false
	}
	lines, found := delimited(body, "--"+boundary)
	if !found {
		return false
	}
	for i, raw := range lines {
		if i >= partsMax {
			break
		}
		p, typ := readPart(raw)
		c.take(p, typ, depth+1)
	}
	return true
}

var boundaryParam = regexp.MustCompile(`(?i)boundary=`)

// boundaryOf returns the boundary that is used: that of the header field when the
// body has it, else that of the body's first delimiter.
func boundaryOf(contentType string, body []byte) string {
	_, params, err := mime.ParseMediaType(contentType)
	b := params["boundary"]
	if err != nil && b == "" { // a parameter without quotes that needs them, a stray semicolon
		if at := boundaryParam.FindStringIndex(contentType); at != nil {
			b, _, _ = strings.Cut(contentType[at[1]:], ";")
			b = strings.Trim(strings.TrimSpace(b), `"`)
		}
	}
	if b != "" && len(b) <= boundaryMax && bytes.Contains(body, []byte("--"+b)) {
		return b
	}
	first := bytes.TrimLeft(body, " \t\r\n")
	line, _, _ := bytes.Cut(first, []byte("\n"))
	own, ok := strings.CutPrefix(strings.TrimRight(string(line), " \t\r"), "--")
	if !ok || own == "" || len(own) > boundaryMax {
		return ""
	}
	return own
}

// delimited returns what lies between the lines that begin with a delimiter.
func delimited(body []byte, delimiter string) (parts [][]byte, found bool) {
	start := -1
	for pos := 0; pos < len(body) && len(parts) <= partsMax; {
		next := len(body)
		if i := bytes.IndexByte(body[pos:], '\n'); i >= 0 {
			next = pos + i + 1
		}
		line := strings.TrimRight(string(body[pos:min(next, pos+len(delimiter)+8)]), " \t\r\n")
		if line == delimiter || line == delimiter+"--" {
			if start >= 0 {
				parts = append(parts, bytes.TrimRight(body[start:pos], "\r\n"))
			}
			found = true
			if start = next; line != delimiter {
				return parts, true
			}
		}
		pos = next
	}
	if start >= 0 && start < len(body) {
		parts = append(parts, body[start:])
	}
	return parts, found
}

// readPart reads the header of a part. A Content-Length in it is not looked at: it
// is wrong too often, and the delimiter says where the part ends.
func readPart(raw []byte) (p part, contentType string) {
	encoding := ""
	for {
		line, rest, ok := bytes.Cut(raw, []byte("\n"))
		text := strings.TrimRight(string(line), "\r")
		name, value, isField := strings.Cut(text, ":")
		if text != "" && (!isField || strings.ContainsAny(name, "<= \t")) {
			break // no header field: the empty line is missing
		}
		if raw = rest; text == "" {
			break
		}
		switch value = strings.TrimSpace(value); strings.ToLower(strings.TrimSpace(name)) {
		case "content-type", "c":
			contentType, p.typ = value, mediaType(value)
		case "content-disposition":
			p.disposition = mediaType(value)
		case "content-transfer-encoding":
			encoding = strings.ToLower(value)
		}
		if !ok {
			break
		}
	}
	p.content = decoded(raw, encoding)
	return p, contentType
}

func decoded(raw []byte, encoding string) []byte {
	var out []byte
	var err error
	switch encoding {
	case "base64":
		out, err = io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(bytes.ReplaceAll(raw, []byte("\r"), nil))))
	case "quoted-printable":
		out, err = io.ReadAll(quotedprintable.NewReader(bytes.NewReader(raw)))
	default:
		return raw
	}
	if err != nil {
		return raw
	}
	return out
}

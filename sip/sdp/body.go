package sdp

import (
	"bytes"
	"mime"
	"slices"
	"strconv"
	"strings"
)

const (
	multipartBytesMax = 1 << 20 // of a body in which a description is looked for
	boundaryBytesMax  = 70      // RFC 2046 section 5.1.1
)

// SplitBody finds the session description in the body of a message: the whole
// body of application/sdp, or the first such part of a multipart body (RFC
// 5621). replace returns the body with another description in its place:
// boundary and other parts stay as they were, a Content-Length in the part's
// header is corrected. ok is false when there is none. sdp shares memory with
// body; replace does not change body.
func SplitBody(contentType string, body []byte) (sdp []byte, replace func(newSDP []byte) []byte, ok bool) {
	if len(body) > multipartBytesMax {
		return nil, nil, false
	}
	if strings.EqualFold(contentType, "application/sdp") {
		return body, bytes.Clone, true
	}
	typ, params, err := mime.ParseMediaType(contentType)
	if err != nil && typ == "" {
		return nil, nil, false
	}
	if typ == "application/sdp" {
		return body, bytes.Clone, true
	}
	boundary := params["boundary"]
	if !strings.HasPrefix(typ, "multipart/") || boundary == "" || len(boundary) > boundaryBytesMax {
		return nil, nil, false
	}
	p, ok := findPart(body, boundary)
	if !ok {
		return nil, nil, false
	}
	return body[p.content:p.end], func(newSDP []byte) []byte { return p.replace(body, newSDP) }, true
}

// part is one part of a multipart body, by offsets.
type part struct {
	header, content, end int
	lengthAt, lengthTo   int // the digits of its Content-Length, equal without one
}

func (p part) replace(body, newSDP []byte) []byte {
	if p.lengthAt == p.lengthTo {
		return slices.Concat(body[:p.content], newSDP, body[p.end:])
	}
	length := []byte(strconv.Itoa(len(newSDP)))
	return slices.Concat(body[:p.lengthAt], length, body[p.lengthTo:p.content], newSDP, body[p.end:])
}

// findPart returns the first part that is a description.
func findPart(body []byte, boundary string) (part, bool) {
	delimiter := []byte("--" + boundary)
	at, _, last := nextDelimiter(body, 0, delimiter)
	for at >= 0 && !last {
		lineEnd := bytes.IndexByte(body[at:], '\n')
		if lineEnd < 0 {
			break
		}
		p := part{header: at + lineEnd + 1}
		next, contentEnd, isLast := nextDelimiter(body, p.header, delimiter)
		p.end = contentEnd
		if p.readHeader(body) {
			return p, true
		}
		at, last = next, isLast
	}
	return part{}, false
}

// nextDelimiter finds the next delimiter line from an offset at the beginning
// of a line on: where it begins, where the content before it ends (the line
// end before it belongs to the delimiter), and whether it is the closing one.
// Without one it returns -1 and the end of the body.
func nextDelimiter(body []byte, from int, delimiter []byte) (at, contentEnd int, last bool) {
	for pos := from; pos < len(body); {
		eol := bytes.IndexByte(body[pos:], '\n')
		next := pos + eol + 1
		if eol < 0 {
			next = len(body)
		}
		if rest, ok := bytes.CutPrefix(body[pos:next], delimiter); ok {
			closing := bytes.HasPrefix(rest, []byte("--"))
			if tail := bytes.TrimRight(bytes.TrimPrefix(rest, []byte("--")), " \t\r\n"); len(tail) == 0 {
				contentEnd = pos
				if contentEnd > from {
					contentEnd--
				}
				if contentEnd > from && body[contentEnd-1] == '\r' {
					contentEnd--
				}
				return pos, contentEnd, closing
			}
		}
		pos = next
	}
	return -1, len(body), false
}

// readHeader finds the content and tells whether it is a description in clear.
func (p *part) readHeader(body []byte) bool {
	isSDP := false
	for pos := p.header; pos < p.end; {
		eol := bytes.IndexByte(body[pos:p.end], '\n')
		if eol < 0 {
			return false
		}
		text := strings.TrimRight(string(body[pos:pos+eol]), "\r")
		next := pos + eol + 1
		if text == "" {
			p.content = next
			return isSDP
		}
		name, value, _ := strings.Cut(text, ":")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "content-type", "c":
			typ, _, _ := strings.Cut(value, ";")
			isSDP = strings.EqualFold(strings.TrimSpace(typ), "application/sdp")
		case "content-transfer-encoding":
			switch strings.ToLower(strings.TrimSpace(value)) {
			case "binary", "8bit", "7bit":
			default:
				return false
			}
		case "content-length", "l":
			digits := strings.TrimSpace(value)
			if _, err := strconv.ParseUint(digits, 10, 32); err != nil {
				break
			}
			p.lengthAt = pos + strings.LastIndex(text, digits)
			p.lengthTo = p.lengthAt + len(digits)
		}
		pos = next
	}
	return false
}

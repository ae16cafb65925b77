package b2bua

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"io"
	"strings"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/sdp"
)

// inflatedBytesMax bounds a description that came compressed.
const inflatedBytesMax = 64 << 10

// description finds the session description of a message: in clear, compressed
// (RFC 3261 section 20.12) or as a part of a multipart body. replace returns the body
// with another one in its place. A body for something else than this session
// (RFC 5621 section 4, RFC 3959), and one that cannot be read, is none of ours.
func description(m *sip.Message) (body []byte, replace func([]byte) []byte, ok bool) {
	if len(m.Body) == 0 {
		return nil, nil, false
	}
	contentType := m.Get("Content-Type")
	if contentType == "" || !forSession(m.Get("Content-Disposition")) {
		return nil, nil, false
	}
	coding := strings.ToLower(strings.TrimSpace(m.Get("Content-Encoding")))
	if coding == "" || coding == "identity" {
		body, replace, ok = sdp.SplitBody(contentType, m.Body)
		return body, replace, ok && len(body) > 0
	}
	plain, deflate := inflated(coding, m.Body)
	if plain == nil {
		return nil, nil, false
	}
	body, within, ok := sdp.SplitBody(contentType, plain)
	if !ok || len(body) == 0 {
		return nil, nil, false
	}
	return body, func(b []byte) []byte { return deflate(within(b)) }, true
}

// forSession says whether a Content-Disposition is that of a description: none, or
// session. Multipart bodies are often said to be something else.
func forSession(disposition string) bool {
	kind, _, _ := strings.Cut(disposition, ";")
	kind = strings.TrimSpace(kind)
	return kind == "" || !strings.EqualFold(kind, "early-session") && !strings.EqualFold(kind, "by-reference")
}

// inflated takes a content coding off, and says how it is put on again; nil when it
// is not known, or too much is behind it.
func inflated(coding string, body []byte) (plain []byte, deflate func([]byte) []byte) {
	var r io.Reader
	var err error
	var begin func(*bytes.Buffer) io.WriteCloser
	switch coding {
	case "gzip", "x-gzip":
		r, err = gzip.NewReader(bytes.NewReader(body))
		begin = func(b *bytes.Buffer) io.WriteCloser { return gzip.NewWriter(b) }
	case "deflate":
		r, err = zlib.NewReader(bytes.NewReader(body))
		begin = func(b *bytes.Buffer) io.WriteCloser { return zlib.NewWriter(b) }
	default:
		return nil, nil
	}
	if err != nil {
		return nil, nil
	}
	plain, err = io.ReadAll(io.LimitReader(r, inflatedBytesMax+1))
	if err != nil || len(plain) > inflatedBytesMax {
		return nil, nil
	}
	return plain, func(b []byte) []byte {
		var out bytes.Buffer
		w := begin(&out)
		_, _ = w.Write(b) // a buffer takes everything
		_ = w.Close()
		return out.Bytes()
	}
}

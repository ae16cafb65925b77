package segment

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/trunktap/trunktap/recorder"
)

// deflaters are kept because each one holds several hundred kilobytes.
var deflaters = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}}

// inflaters are kept because each one holds some forty kilobytes.
var inflaters = sync.Pool{New: func() any { return flate.NewReader(nil) }}

// storedBytesMax is up to which size an account is stored in a block as it is:
// to find out how a few kilobytes could be fewer costs more than to keep them.
const storedBytesMax = 4 << 10

// encodeAccount returns a manifest as JSON in DEFLATE (RFC 1951).
func encodeAccount(m *recorder.Manifest) ([]byte, error) {
	js, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write account: %w", err)
	}
	return packAccount(js)
}

// packAccount deflates the JSON of an account.
func packAccount(js []byte) ([]byte, error) {
	if len(js) > AccountBytesMax {
		return nil, fmt.Errorf("account of %d bytes: at most %d", len(js), AccountBytesMax)
	}
	if len(js) <= storedBytesMax {
		return storedBlock(js), nil
	}
	var b bytes.Buffer
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	w.Reset(&b)
	if _, err := w.Write(js); err != nil {
		return nil, fmt.Errorf("write account: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write account: %w", err)
	}
	return b.Bytes(), nil
}

// storedBlock returns at most 65535 bytes as one block without compression, the
// last of its stream (RFC 1951 section 3.2.4).
func storedBlock(p []byte) []byte {
	b := append(make([]byte, 0, 5+len(p)), 1)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(p)))
	b = binary.LittleEndian.AppendUint16(b, ^uint16(len(p)))
	return append(b, p...)
}

func decodeAccount(b []byte) (*recorder.Manifest, error) {
	js, err := unpackAccount(b)
	if err != nil {
		return nil, err
	}
	m := new(recorder.Manifest)
	if err := json.Unmarshal(js, m); err != nil {
		return nil, fmt.Errorf("read account: %w", err)
	}
	return m, nil
}

// unpackAccount inflates the JSON of an account.
func unpackAccount(b []byte) ([]byte, error) {
	r := inflaters.Get().(io.ReadCloser)
	defer inflaters.Put(r)
	if err := r.(flate.Resetter).Reset(bytes.NewReader(b), nil); err != nil {
		return nil, fmt.Errorf("read account: %w", err)
	}
	js, err := io.ReadAll(io.LimitReader(r, AccountBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("read account: %w", err)
	}
	if len(js) > AccountBytesMax {
		return nil, fmt.Errorf("account: more than %d bytes", AccountBytesMax)
	}
	return js, nil
}

package segment

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
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
	m := new(recorder.Manifest)
	if err := json.Unmarshal(js, m); err != nil {
		return nil, fmt.Errorf("read account: %w", err)
	}
	return m, nil
}

// SealManifest returns the manifest file of a recording, sealed with its data key.
func SealManifest(key recorder.DataKey, prefix string, m *recorder.Manifest) ([]byte, error) {
	head, err := Header{Recording: m.ID, Prefix: prefix, Key: key.Wrapped()}.encode(kindManifest)
	if err != nil {
		return nil, fmt.Errorf("seal manifest: %w", err)
	}
	body, err := encodeAccount(m)
	if err != nil {
		return nil, fmt.Errorf("seal manifest: %w", err)
	}
	bind := newBinding(head)
	out, err := appendFrame(head, key, &bind, 0, frameManifest, body)
	if err != nil {
		return nil, fmt.Errorf("seal manifest: %w", err)
	}
	return out, nil
}

// ManifestBytesMax bounds a manifest file.
const ManifestBytesMax = int64(preambleBytes) + HeaderBytesMax + frameHead + FrameBytesMax

// OpenManifest authenticates and returns the manifest in a file of
// SealManifest. recorder.ErrTampered and recorder.ErrKey as in the Sealer.
func OpenManifest(ctx context.Context, b recorder.Blob, sealer recorder.Sealer) (*recorder.Manifest, Header, error) {
	r, err := open(ctx, b, sealer, kindManifest)
	if err != nil {
		return nil, Header{}, fmt.Errorf("open manifest: %w", err)
	}
	defer r.Close()
	typ, plain, err := r.frame()
	if err == nil && typ != frameManifest {
		err = r.fault(FaultAltered, fmt.Errorf("frame type %d", typ))
	}
	if err == nil {
		err = r.trailing()
	}
	if errors.Is(err, io.EOF) {
		err = r.fault(FaultTruncated, errors.New("no frame"))
	}
	if err != nil {
		return nil, r.head, fmt.Errorf("open manifest: %w", err)
	}
	m, err := decodeAccount(plain)
	if err != nil {
		return nil, r.head, fmt.Errorf("open manifest: %w", err)
	}
	if m.ID != r.head.Recording {
		return nil, r.head, fmt.Errorf("open manifest: %w", r.fault(FaultAltered, fmt.Errorf("it is that of recording %s", m.ID)))
	}
	return m, r.head, nil
}

package segment

import (
	"bytes"
	"compress/flate"
	"context"
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

// encodeAccount returns a manifest as deflated JSON.
func encodeAccount(m *recorder.Manifest) ([]byte, error) {
	js, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write account: %w", err)
	}
	if len(js) > AccountBytesMax {
		return nil, fmt.Errorf("account of %d bytes: at most %d", len(js), AccountBytesMax)
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

func decodeAccount(b []byte) (*recorder.Manifest, error) {
	js, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), AccountBytesMax+1))
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

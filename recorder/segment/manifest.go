package segment

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/trunktap/trunktap/recorder"
)

// LinkBytesMax bounds what stands behind a sealed manifest.
const LinkBytesMax = 1 << 20

// ManifestBytesMax bounds a manifest file.
const ManifestBytesMax = int64(preambleBytes) + HeaderBytesMax + frameHead + FrameBytesMax + frameHead + LinkBytesMax

// SealManifest returns the manifest file of a recording, sealed with its data key.
// The wrapped key lies in KeyFile beside it.
func SealManifest(key recorder.DataKey, prefix string, m *recorder.Manifest) ([]byte, error) {
	js, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("seal manifest: %w", err)
	}
	return SealManifestJSON(key, prefix, m.ID, js)
}

// SealManifestJSON is SealManifest of a manifest that is JSON already.
func SealManifestJSON(key recorder.DataKey, prefix, id string, js []byte) ([]byte, error) {
	head, err := Header{Recording: id, Prefix: prefix}.encode(kindManifest)
	if err != nil {
		return nil, fmt.Errorf("seal manifest: %w", err)
	}
	body, err := packAccount(js)
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

// AppendLink puts the signed link of a manifest behind it, in plain text.
func AppendLink(sealed, link []byte) ([]byte, error) {
	if len(link) == 0 || len(link) > LinkBytesMax {
		return nil, fmt.Errorf("link of %d bytes: want 1 to %d", len(link), LinkBytesMax)
	}
	out := slices.Concat(sealed, []byte{frameLink})
	out = binary.BigEndian.AppendUint32(out, uint32(len(link)))
	return append(out, link...), nil
}

// SplitManifest returns the sealed part of a manifest file and the link behind
// it, nil when there is none, without opening anything. Errors are *FrameError.
func SplitManifest(content []byte) (sealed, link []byte, err error) {
	bad := func(at int, fault Fault, why string) error {
		return fmt.Errorf("split manifest: %w", &FrameError{Offset: int64(at), Fault: fault, Err: errors.New(why)})
	}
	if len(content) < preambleBytes {
		return nil, nil, bad(0, FaultTruncated, "no header")
	}
	n, err := parsePreamble(content[:preambleBytes], kindManifest)
	if err != nil {
		return nil, nil, bad(0, FaultAltered, err.Error())
	}
	at := preambleBytes + n
	for i := range 2 {
		if len(content) == at && i == 1 {
			return content, nil, nil
		}
		if len(content) < at+frameHead {
			return nil, nil, bad(at, FaultTruncated, "no whole frame")
		}
		size := int64(binary.BigEndian.Uint32(content[at+1:]))
		if size > FrameBytesMax {
			return nil, nil, bad(at, FaultAltered, "a frame that is too long")
		}
		end := at + frameHead + int(size)
		if len(content) < end {
			return nil, nil, bad(at, FaultTruncated, "no whole frame")
		}
		if i == 1 {
			if content[at] != frameLink || len(content) != end {
				return nil, nil, bad(at, FaultAltered, "what stands behind the manifest is not its link alone")
			}
			return content[:at:at], content[at+frameHead : end], nil
		}
		at = end
	}
	return nil, nil, bad(at, FaultAltered, "no end")
}

// Opened is an authentic manifest and what it came with.
type Opened struct {
	Manifest *recorder.Manifest
	JSON     []byte // as it was sealed
	Header   Header
	Link     []byte // signed; nil: it has none. Not checked
}

// OpenManifest authenticates and returns the manifest in a file of
// SealManifest. recorder.ErrTampered and recorder.ErrKey as in the Sealer.
func OpenManifest(ctx context.Context, b recorder.Blob, opener Opener) (*recorder.Manifest, Header, error) {
	o, err := OpenLinked(ctx, b, opener)
	return o.Manifest, o.Header, err
}

// OpenLinked is OpenManifest and gives the link behind the manifest too.
func OpenLinked(ctx context.Context, b recorder.Blob, opener Opener) (Opened, error) {
	r, err := open(ctx, b, opener, kindManifest)
	if err != nil {
		return Opened{}, fmt.Errorf("open manifest: %w", err)
	}
	defer r.Close()
	o := Opened{Header: r.head}
	if err := r.manifest(&o); err != nil {
		return Opened{Header: r.head}, fmt.Errorf("open manifest: %w", err)
	}
	return o, nil
}

// manifest reads the frame of a manifest and what stands behind it.
func (r *Reader) manifest(o *Opened) error {
	typ, plain, err := r.frame()
	if err == nil && typ != frameManifest {
		err = r.fault(FaultAltered, fmt.Errorf("frame type %d", typ))
	}
	if errors.Is(err, io.EOF) {
		err = r.fault(FaultTruncated, errors.New("no frame"))
	}
	if err != nil {
		return err
	}
	if o.JSON, err = unpackAccount(plain); err != nil {
		return err
	}
	o.Manifest = new(recorder.Manifest)
	if err := json.Unmarshal(o.JSON, o.Manifest); err != nil {
		return fmt.Errorf("read account: %w", err)
	}
	if o.Manifest.ID != r.head.Recording {
		return r.fault(FaultAltered, fmt.Errorf("it is that of recording %s", o.Manifest.ID))
	}
	o.Link, err = r.link()
	return err
}

// link reads the link behind a manifest, nil when there is none.
func (r *Reader) link() ([]byte, error) {
	r.at, r.cur = r.off, r.index
	if r.off == r.size {
		return nil, nil
	}
	h, err := r.read(r.off, frameHead)
	if err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(h[1:])
	if h[0] != frameLink || n > LinkBytesMax {
		return nil, r.fault(FaultAltered, fmt.Errorf("%d bytes after the last frame", r.size-r.off))
	}
	link, err := r.read(r.off+frameHead, int(n))
	if err != nil {
		return nil, err
	}
	if r.off += frameHead + int64(n); r.off != r.size {
		return nil, r.fault(FaultAltered, fmt.Errorf("%d bytes after its link", r.size-r.off))
	}
	return append([]byte{}, link...), nil
}

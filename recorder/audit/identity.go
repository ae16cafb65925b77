package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/trunktap/trunktap/recorder/vfs"
)

const keyFileBytesMax = 1 << 20 // some 2,000 rotations

// KeyFileError says what is wrong with the file of a node's signing keys and
// what to do about it.
type KeyFileError struct {
	Path string
	Hint string
	Err  error
}

// Error implements error.
func (e *KeyFileError) Error() string {
	return fmt.Sprintf("node key file %s: %v (%s)", e.Path, e.Err, e.Hint)
}

// Unwrap returns the cause.
func (e *KeyFileError) Unwrap() error { return e.Err }

// CheckNode tells whether a name can be a node's: 1 to 63 lower-case letters,
// digits, '-', '_' and '.', not beginning with '.'.
func CheckNode(name string) error {
	if name == "" || len(name) > 63 || name[0] == '.' {
		return fmt.Errorf("node name %q: want 1 to 63 characters, not beginning with '.'", name)
	}
	for _, c := range name {
		if !strings.ContainsRune("-_.", c) && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return fmt.Errorf("node name %q: character %q is not allowed; take lower-case letters, digits, '-', '_' and '.'", name, c)
		}
	}
	return nil
}

// IdentityConfig says where a node's signing keys lie.
type IdentityConfig struct {
	Path     string // JSON, mode 0600
	Node     string // see CheckNode
	FS       vfs.FS // nil: the machine's
	ReadOnly bool   // a missing file is an error, not a reason to make one
}

// Identity signs for a node with Ed25519. Safe for concurrent use.
type Identity struct {
	path string
	node string
	fsys vfs.FS

	mu     sync.RWMutex // guards all following
	keys   []storedKey
	signer note.Signer
	ring   *Ring
}

// storedKey is one key of the key file. The last one signs; those before it only
// tell whose successor it is.
type storedKey struct {
	Private   string `json:"private,omitempty"` // of the last one alone
	Statement string `json:"statement"`         // see Ring
}

type keyFile struct {
	Version int         `json:"version"` // 1
	Node    string      `json:"node"`
	Keys    []storedKey `json:"keys"`
}

// OpenIdentity reads the key file and makes it when it does not exist. Errors
// are *KeyFileError; fs.ErrNotExist is in their chain when the file is missing
// and may not be made.
func OpenIdentity(cfg IdentityConfig) (*Identity, error) {
	i := &Identity{path: cfg.Path, node: cfg.Node, fsys: cfg.FS}
	if i.fsys == nil {
		i.fsys = vfs.OS{}
	}
	if err := CheckNode(cfg.Node); err != nil {
		return nil, err
	}
	err := i.load()
	if errors.Is(err, fs.ErrNotExist) && !cfg.ReadOnly {
		if err = vfs.MkdirAll(i.fsys, filepath.Dir(i.path)); err == nil {
			err = i.Rotate(time.Now())
		}
	}
	if err != nil {
		return nil, i.explain(err)
	}
	return i, nil
}

func (i *Identity) explain(err error) error {
	var e *KeyFileError
	if errors.As(err, &e) {
		return err
	}
	hint := "restore it from a backup, or move it aside to begin with a new key: what was signed stays verifiable with the old public key"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint = "start the daemon once to make it, or restore it from a backup"
	case errors.Is(err, fs.ErrPermission):
		hint = "make it readable for the daemon's user alone"
	}
	return &KeyFileError{i.path, hint, err}
}

func (i *Identity) load() error {
	info, err := i.fsys.Stat(i.path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return &KeyFileError{i.path, "chmod 600 it, and rotate the key if others may have read it", fmt.Errorf("mode %04o lets others read or write it", info.Mode().Perm())}
	}
	js, err := vfs.ReadFile(i.fsys, i.path, keyFileBytesMax)
	if err != nil {
		return err
	}
	var f keyFile
	if err := json.Unmarshal(js, &f); err != nil {
		return errors.New("it is not the JSON of a node's keys") // the cause might quote a key
	}
	switch {
	case f.Version != 1 || len(f.Keys) == 0:
		return errors.New("it is not the JSON of a node's keys")
	case f.Node != i.node:
		return &KeyFileError{i.path, "set audit.node to that name, or name another file in audit.key_file", fmt.Errorf("it has the keys of node %q, the configuration says %q", f.Node, i.node)}
	}
	return i.take(f.Keys)
}

// take makes keys the identity's.
func (i *Identity) take(keys []storedKey) error {
	last := keys[len(keys)-1]
	signer, err := note.NewSigner(last.Private)
	if err != nil {
		return errors.New("its last key is damaged")
	}
	statements := make([][]byte, len(keys))
	for n, k := range keys {
		statements[n] = []byte(k.Statement)
	}
	ring, err := ParseRing(statements)
	if err != nil {
		return err
	}
	if ring.Active().ID != hashID(signer.KeyHash()) || ring.Node != i.node {
		return errors.New("its last key and what is said of it differ")
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys, i.signer, i.ring = keys, signer, ring
	return nil
}

func hashID(h uint32) string { return fmt.Sprintf("%08x", h) }

// Rotate makes a new signing key, which the one before vouches for; that one's
// private part is forgotten when the new one is durable.
func (i *Identity) Rotate(now time.Time) error {
	skey, vkey, err := note.GenerateKey(rand.Reader, i.node)
	if err != nil {
		return err
	}
	i.mu.RLock()
	keys := append([]storedKey(nil), i.keys...)
	old, ring := i.signer, i.ring
	i.mu.RUnlock()
	s := statement{Node: i.node, Number: len(keys) + 1, Key: vkey, Created: now.UTC().Truncate(time.Second)}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return err
	}
	signers := []note.Signer{signer}
	if ring != nil {
		s.Previous = ring.Active().VKey
		signers = append(signers, old)
		keys[len(keys)-1].Private = ""
	}
	signed, err := note.Sign(&note.Note{Text: s.text()}, signers...)
	if err != nil {
		return err
	}
	keys = append(keys, storedKey{Private: skey, Statement: string(signed)})
	js, err := json.MarshalIndent(keyFile{Version: 1, Node: i.node, Keys: keys}, "", "  ")
	if err != nil {
		return err
	}
	if err := vfs.WriteFile(i.fsys, i.path, append(js, '\n')); err != nil {
		return err
	}
	return i.take(keys)
}

// Node returns the node's name.
func (i *Identity) Node() string { return i.node }

// Ring returns the node's public keys.
func (i *Identity) Ring() *Ring {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.ring
}

// Sign returns text as a signed note of the node; the text ends with a newline.
func (i *Identity) Sign(text string) ([]byte, error) {
	i.mu.RLock()
	signer := i.signer
	i.mu.RUnlock()
	return note.Sign(&note.Note{Text: text}, signer)
}

// statement tells of a key: who its predecessor was.
type statement struct {
	Node     string
	Number   int // from 1
	Key      string
	Previous string // empty: it is the first
	Created  time.Time
}

const statementHead = "trunktap node key 1\n"

func (s statement) text() string {
	previous := ""
	if s.Previous != "" {
		previous = "previous: " + s.Previous + "\n"
	}
	return fmt.Sprintf("%snode: %s\nnumber: %d\nkey: %s\n%screated: %s\n", statementHead, s.Node, s.Number, s.Key, previous, s.Created.Format(time.RFC3339))
}

func parseStatement(text string) (s statement, err error) {
	f, err := parseFields(text, statementHead)
	if err != nil {
		return s, err
	}
	s.Node, s.Key, s.Previous = f.one("node"), f.one("key"), f.one("previous")
	s.Number, s.Created = int(f.integer("number")), f.time("created", time.RFC3339)
	if f.err == nil && s.text() != text {
		f.err = errors.New("it is not in its one form")
	}
	if f.err == nil {
		f.err = CheckNode(s.Node)
	}
	return s, f.err
}

// Key is a public key of a node.
type Key struct {
	Number    int       `json:"number"` // from 1
	ID        string    `json:"id"`     // 8 hexadecimal digits, as in signatures
	VKey      string    `json:"key"`    // name+id+base64, as package note reads it
	Created   time.Time `json:"created"`
	Statement string    `json:"statement"` // the node's word about it, signed

	public   ed25519.PublicKey
	verifier note.Verifier
}

// PEM returns the key as OpenSSL reads it (RFC 8410).
func (k Key) PEM() []byte {
	der, err := x509.MarshalPKIXPublicKey(k.public)
	if err != nil {
		panic(err) // an Ed25519 key always marshals
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// Ring is the public keys of one node, oldest first. Each vouches for the next
// one and names the one before, so that who trusts one of them may trust all.
type Ring struct {
	Node string
	Keys []Key
}

// ringMax bounds the keys of a ring.
const ringMax = 4096

// ParseRing reads statements, oldest first. The error names the first that
// does not follow from the one before it.
func ParseRing(statements [][]byte) (*Ring, error) {
	if len(statements) == 0 || len(statements) > ringMax {
		return nil, fmt.Errorf("%d statements of keys: want 1 to %d", len(statements), ringMax)
	}
	r := &Ring{}
	for i, raw := range statements {
		k, err := r.parse(i, raw)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		r.Keys = append(r.Keys, k)
	}
	return r, nil
}

func (r *Ring) parse(i int, raw []byte) (Key, error) {
	body, _, ok := bytes.Cut(raw, []byte("\n\n"))
	if !ok {
		return Key{}, errors.New("it is no signed note")
	}
	s, err := parseStatement(string(body) + "\n")
	if err != nil {
		return Key{}, err
	}
	k, err := newKey(s.Key)
	if err != nil {
		return Key{}, err
	}
	k.Number, k.Created, k.Statement = s.Number, s.Created, string(raw)
	known := []note.Verifier{k.verifier}
	previous := ""
	if i == 0 {
		r.Node = s.Node
	} else {
		known = append(known, r.Keys[i-1].verifier)
		previous = r.Keys[i-1].VKey
	}
	if s.Node != r.Node || s.Number != i+1 || s.Previous != previous || k.verifier.Name() != s.Node {
		return Key{}, errors.New("it does not follow from the one before it")
	}
	n, err := note.Open(raw, note.VerifierList(known...))
	if err != nil || len(n.Sigs) != len(known) || len(n.UnverifiedSigs) > 0 {
		return Key{}, errors.Join(errors.New("its signatures do not fit"), err)
	}
	again := n.Text + "\n"
	for _, sig := range n.Sigs {
		raw, err := decodeSig(sig.Base64)
		if err != nil {
			return Key{}, errors.New("its signatures are not in their one form")
		}
		again += "— " + sig.Name + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
	}
	if again != string(raw) {
		return Key{}, errors.New("it is not in its one form")
	}
	return k, nil
}

func newKey(vkey string) (Key, error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return Key{}, fmt.Errorf("public key: %w", err)
	}
	parts := strings.SplitN(vkey, "+", 3)
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize {
		return Key{}, errors.New("public key: not one of Ed25519")
	}
	return Key{ID: hashID(v.KeyHash()), VKey: vkey, public: ed25519.PublicKey(raw[1:]), verifier: v}, nil
}

// Active returns the key that signs.
func (r *Ring) Active() Key { return r.Keys[len(r.Keys)-1] }

// Has tells whether a key, as name+id+base64 or as its id alone, is one of the ring.
func (r *Ring) Has(key string) bool {
	for _, k := range r.Keys {
		if k.VKey == key || k.ID == key {
			return true
		}
	}
	return false
}

// Statements returns what ParseRing reads.
func (r *Ring) Statements() [][]byte {
	out := make([][]byte, len(r.Keys))
	for i, k := range r.Keys {
		out[i] = []byte(k.Statement)
	}
	return out
}

// ErrSignature says that a signature is missing, does not fit, or comes from a
// key that is not the node's.
var ErrSignature = errors.New("the signature does not fit")

// Open checks a signed note of the node and returns its text, the id of the key
// and the signature, 64 bytes. ErrSignature.
func (r *Ring) Open(signed []byte) (text, key string, sig []byte, err error) {
	verifiers := make([]note.Verifier, len(r.Keys))
	for i, k := range r.Keys {
		verifiers[i] = k.verifier
	}
	n, err := note.Open(signed, note.VerifierList(verifiers...))
	if err != nil {
		return "", "", nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if len(n.Sigs) != 1 || len(n.UnverifiedSigs) != 0 {
		return "", "", nil, fmt.Errorf("%w: %d signatures, want one", ErrSignature, len(n.Sigs)+len(n.UnverifiedSigs))
	}
	raw, err := decodeSig(n.Sigs[0].Base64)
	if err != nil || len(raw) != 4+ed25519.SignatureSize {
		return "", "", nil, fmt.Errorf("%w: it is not one of Ed25519", ErrSignature)
	}
	if again := joinNote(n.Text, r.Node, raw); !bytes.Equal(again, signed) {
		return "", "", nil, fmt.Errorf("%w: the note is not in its one form", ErrSignature)
	}
	return n.Text, hashID(n.Sigs[0].Hash), raw[4:], nil
}

// joinNote writes a note of one signature; raw begins with the hash of the key.
func joinNote(text, node string, raw []byte) []byte {
	return []byte(text + "\n— " + node + " " + base64.StdEncoding.EncodeToString(raw) + "\n")
}

// Join makes a note of a text and a bare signature of a key of the ring.
func (r *Ring) Join(text, key string, sig []byte) ([]byte, error) {
	for _, k := range r.Keys {
		if k.ID == key {
			h := k.verifier.KeyHash()
			raw := append([]byte{byte(h >> 24), byte(h >> 16), byte(h >> 8), byte(h)}, sig...)
			return joinNote(text, r.Node, raw), nil
		}
	}
	return nil, fmt.Errorf("%w: key %s is none of node %s", ErrSignature, key, r.Node)
}

// decodeSig decodes the signature of a note: the hash of the key and 64 bytes.
func decodeSig(s string) ([]byte, error) { return base64.StdEncoding.Strict().DecodeString(s) }

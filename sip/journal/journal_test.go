package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testKey authenticates by putting the binding before the data.
type testKey struct{}

func (testKey) Seal(plain, bind []byte) ([]byte, error) {
	return append(append([]byte{byte(len(bind))}, bind...), plain...), nil
}

func (testKey) Open(sealed, bind []byte) ([]byte, error) {
	if len(sealed) < 1+len(bind) || int(sealed[0]) != len(bind) || !bytes.Equal(sealed[1:1+len(bind)], bind) {
		return nil, errors.New("tampered")
	}
	return sealed[1+len(bind):], nil
}

func (k testKey) key(wrapped []byte) (Key, error) {
	if string(wrapped) != "wrapped" {
		return nil, errors.New("another key")
	}
	return k, nil
}

type testKeys struct{}

func (testKeys) New() (Key, []byte, error)        { return testKey{}, []byte("wrapped"), nil }
func (testKeys) Open(wrapped []byte) (Key, error) { return testKey{}.key(wrapped) }

func open(t testing.TB, path string) (*Journal, *Contents) {
	t.Helper()
	j, c, err := Open(path, testKeys{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return j, c
}

// text tells all that is kept.
func (c *Contents) text() map[string]string {
	out := map[string]string{}
	for k, v := range c.Calls {
		out[k] = fmt.Sprintf("%s %q", v.State, v.Notes)
	}
	return out
}

func TestKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "calls.journal")
	j, c := open(t, path)
	if len(c.Calls) != 0 {
		t.Fatal("a new journal has calls")
	}
	j.Put("a", []byte("one"))
	j.Put("b", []byte("two"))
	j.Add("a", []byte("n1"))
	j.Put("a", []byte("three"))
	j.Add("a", []byte("n2"))
	j.Drop("b")
	j.Flush()
	// The process dies here: its file is read as it lies there.
	left, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 { // and again after each start
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			if err := os.WriteFile(path, left, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		j, c = open(t, path)
		if got := c.text(); len(got) != 1 || got["a"] != `three ["n1" "n2"]` {
			t.Fatalf("round %d: %v", round, got)
		}
		if c.Alive.IsZero() {
			t.Error("it does not tell when the process was alive")
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j.Put("a", nil) {
		t.Error("a closed journal takes entries")
	}
}

func TestLimits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "calls.journal")
	j, _ := open(t, path)
	defer func() { _ = j.Close() }()
	if j.Put("a", make([]byte, EntryBytesMax+1)) || j.Put(strings.Repeat("k", keyBytesMax+1), nil) {
		t.Error("an entry beyond the limits is taken")
	}
	for range NotesMax + 1 {
		j.Add("a", []byte("n"))
	}
	j.Flush()
	if n := j.Counters.Refused.Load(); n != 3 {
		t.Errorf("%d refused, want 3", n)
	}
}

func TestRewritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "calls.journal")
	j, _ := open(t, path)
	for i := range 200 {
		j.Put("a", bytes.Repeat([]byte{byte(i)}, EntryBytesMax))
		j.Flush()
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() > 3*EntryBytesMax+slackBytes {
		t.Errorf("%d bytes, %v", st.Size(), err)
	}
	j, c := open(t, path)
	if s := c.Calls["a"]; s == nil || len(s.State) != EntryBytesMax || s.State[0] != 199 {
		t.Error("the latest state is not there")
	}
	_ = j.Close()
}

func testHead() (Key, []byte, error) {
	key, wrapped, err := testKeys{}.New()
	return key, newHead(wrapped), err
}

// TestRewrap: the same key is told of in other words, and everything is still there.
func TestRewrap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "calls.journal")
	j, _ := open(t, path)
	j.Put("a", []byte("before"))
	j.Rewrap([]byte("in other words"))
	j.Put("b", []byte("after"))
	j.Flush()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var words string
	c, err := Read(data, func(wrapped []byte) (Key, error) {
		words = string(wrapped)
		return testKey{}, nil
	})
	if err != nil || words != "in other words" || len(c.Calls) != 2 || c.Torn != 0 {
		t.Errorf("%q, %+v, %v", words, c, err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

// TestVersionBefore: what a daemon of before has left is gone on with.
func TestVersionBefore(t *testing.T) {
	key, head, err := testHead()
	if err != nil {
		t.Fatal(err)
	}
	head[len(magic)] = versionBefore
	state, err := (&Journal{key: key}).frame(op{kindState, "a", []byte("old")})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "calls.journal")
	if err := os.WriteFile(path, append(head, state...), 0o600); err != nil {
		t.Fatal(err)
	}
	j, c := open(t, path)
	if s := c.Calls["a"]; s == nil || string(s.State) != "old" {
		t.Errorf("%+v", c)
	}
	_ = j.Close()
	if b, err := os.ReadFile(path); err != nil || b[len(magic)] != version {
		t.Errorf("it is still of version %q, %v", b[len(magic)], err)
	}
}

// TestEveryByte cuts and alters a journal at each of its bytes: what is before that place
// is there, and nothing is that was not written.
func TestEveryByte(t *testing.T) {
	key, file, err := testHead()
	if err != nil {
		t.Fatal(err)
	}
	j := &Journal{key: key}
	ends := map[int]int{len(file): 0} // calls that are whole, by length
	for i := range 3 {
		for _, o := range []op{{kindState, string(rune('a' + i)), []byte("state")}, {kindNote, string(rune('a' + i)), []byte("note")}} {
			b, err := j.frame(o)
			if err != nil {
				t.Fatal(err)
			}
			file = append(file, b...)
			ends[len(file)] = i + 1
		}
	}
	sane := func(what string, data []byte, at int) {
		c, err := Read(data, testKeys{}.Open)
		if err != nil {
			return // the beginning: the file is set aside
		}
		least := 0
		for end, n := range ends {
			if end <= at {
				least = max(least, n)
			}
		}
		if len(c.Calls) < least {
			t.Errorf("%s at byte %d: %d calls, want %d", what, at, len(c.Calls), least)
		}
		for id, call := range c.Calls {
			if len(id) != 1 || id[0] < 'a' || id[0] > 'c' || string(call.State) != "state" || len(call.Notes) > 1 {
				t.Errorf("%s at byte %d: call %q: %+v", what, at, id, call)
			}
		}
	}
	for at := range file {
		sane("cut", file[:at], at)
		for bit := range 8 {
			altered := bytes.Clone(file)
			altered[at] ^= 1 << bit
			sane("altered", altered, at)
		}
	}
}

func TestSetAside(t *testing.T) {
	for name, text := range map[string]string{
		"another version": "trunktap calls 3\n....", "no journal": "hello, this is no journal", "another key": magic + "1\n" + string(appendFrame(nil, []byte("Kx"))),
	} {
		path := filepath.Join(t.TempDir(), "calls.journal")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		j, c := open(t, path)
		if len(c.Calls) != 0 {
			t.Errorf("%s: calls", name)
		}
		if aside, err := os.ReadFile(path + ".aside"); err != nil || string(aside) != text {
			t.Errorf("%s: not set aside: %v", name, err)
		}
		if !j.Put("a", nil) {
			t.Errorf("%s: the new one takes nothing", name)
		}
		_ = j.Close()
	}
}

// What is torn or altered at any place costs what is behind it, never what is before.
func TestTorn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, data, _ := testHead()
		j := &Journal{key: testKey{}}
		heads := []int{len(data)}
		n := rapid.IntRange(1, 8).Draw(t, "entries")
		for i := range n {
			f, err := j.frame(op{kindState, fmt.Sprint(i), []byte(rapid.String().Draw(t, "state"))})
			if err != nil {
				t.Fatal(err)
			}
			data = append(data, f...)
			heads = append(heads, len(data))
		}
		at := rapid.IntRange(heads[0], len(data)-1).Draw(t, "at")
		if rapid.Bool().Draw(t, "cut") {
			data = data[:at]
		} else {
			data[at] ^= 0x20
		}
		c, err := Read(data, testKey{}.key)
		if err != nil {
			t.Fatal(err)
		}
		whole := 0
		for whole+1 < len(heads) && heads[whole+1] <= at {
			whole++
		}
		if len(c.Calls) != whole {
			t.Fatalf("%d calls, want %d", len(c.Calls), whole)
		}
	})
}

func FuzzRead(f *testing.F) {
	_, head, _ := testHead()
	j := &Journal{key: testKey{}}
	state, _ := j.frame(op{kindState, "call", []byte("{}")})
	note, _ := j.frame(op{kindNote, "call", []byte("{}")})
	f.Add(append(append(append(head, state...), note...), dropFrame("call")...))
	f.Add([]byte(magic + "9\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Read(data, testKey{}.key)
		if err == nil && (c.Torn < 0 || c.Torn > int64(len(data))) {
			t.Error("torn bytes out of range")
		}
	})
}

// TestAfter: what is done after an entry finds it in the file.
func TestAfter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "calls.journal")
	j, _ := open(t, path)
	for i := range 200 {
		name, done := fmt.Sprint("call-", i), make(chan int, 1)
		j.Put(name, []byte("state"))
		j.After(func() {
			data, err := os.ReadFile(path)
			if err != nil {
				done <- -1
				return
			}
			c, err := Read(data, testKeys{}.Open)
			if err != nil || c.Calls[name] == nil {
				done <- -1
				return
			}
			done <- len(c.Calls)
		})
		if n := <-done; n != i+1 {
			t.Fatalf("after entry %d: %d calls are in the file", i, n)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	done := false
	if j.After(func() { done = true }); !done {
		t.Error("nothing is done after Close")
	}
}

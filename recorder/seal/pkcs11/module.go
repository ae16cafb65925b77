package pkcs11

import (
	"errors"
	"fmt"
	"sync"

	p11 "github.com/miekg/pkcs11"

	"github.com/trunktap/trunktap/recorder/seal"
)

// A PKCS#11 library is initialised once in a process, whoever uses it: C_Finalize
// ends the sessions of all. So users of one library share and count it.
var modules = struct {
	sync.Mutex
	open map[string]*module
}{open: map[string]*module{}}

type module struct {
	path  string
	ctx   *p11.Ctx
	users int // guarded by modules

	// calls is held for reading during calls into the library, for writing while
	// it is initialised anew.
	calls sync.RWMutex
	era   uint64 // how often it was initialised; guarded by calls
}

// openModule loads the library or joins those who use it.
func openModule(path string) (*module, error) {
	modules.Lock()
	defer modules.Unlock()
	if m := modules.open[path]; m != nil {
		m.users++
		return m, nil
	}
	ctx := p11.New(path)
	if ctx == nil {
		return nil, fmt.Errorf("module: %s cannot be loaded (give the path of the PKCS#11 library of the HSM's vendor, made for this machine)", path)
	}
	if err := initialize(ctx); err != nil {
		ctx.Destroy()
		return nil, fmt.Errorf("module: %s: C_Initialize: %w (see the library's own configuration and log)", path, err)
	}
	m := &module{path: path, ctx: ctx, users: 1}
	modules.open[path] = m
	return m, nil
}

func initialize(ctx *p11.Ctx) error {
	err := ctx.Initialize()
	if errors.Is(err, p11.Error(p11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		return nil
	}
	return err
}

// leave ends the use. A library in which a call still hangs is left as it is:
// unloading it would take the ground from under the call.
func (m *module) leave() error {
	modules.Lock()
	defer modules.Unlock()
	if m.users--; m.users > 0 {
		return nil
	}
	delete(modules.open, m.path)
	if !m.calls.TryLock() {
		return fmt.Errorf("close %s: a call into it still hangs", m.path)
	}
	defer m.calls.Unlock()
	err := m.ctx.Finalize()
	m.ctx.Destroy()
	if err != nil {
		return fmt.Errorf("close %s: %w", m.path, err)
	}
	return nil
}

// restart initialises the library anew, which is what makes some find a token
// that was gone. Only when nobody else uses it, no call is under way, and not
// twice for one loss.
func (m *module) restart(era uint64) error {
	modules.Lock()
	defer modules.Unlock()
	if m.users > 1 || !m.calls.TryLock() {
		return nil
	}
	defer m.calls.Unlock()
	if m.era != era {
		return nil
	}
	m.era++
	_ = m.ctx.Finalize() // what it was before does not matter any more
	if err := initialize(m.ctx); err != nil {
		return fmt.Errorf("%w: C_Initialize: %w", seal.ErrUnreachable, err)
	}
	return nil
}

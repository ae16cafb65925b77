package kernel

import (
	"errors"
	"os"
	"time"
)

const (
	// settleTime is how long it has to be quiet before changes are acted on, and
	// settleMax how long that may take.
	settleTime = 20 * time.Millisecond
	settleMax  = 500 * time.Millisecond
	checkEvery = time.Second
)

// watch is the goroutine that follows interfaces, routes and IPsec policies.
func (e *Engine) watch() {
	for {
		told := e.wait()
		select {
		case <-e.stop:
			return
		default:
		}
		if told {
			e.follow()
		}
		was := e.secured.Load()
		e.checkSecured()
		if told || was != e.secured.Load() {
			e.checkWays()
		}
	}
}

// wait returns true some time after something changed, and false when nothing
// did for a while.
func (e *Engine) wait() (told bool) {
	var buf [4096]byte
	patience := checkEvery
	for end := time.Now().Add(checkEvery + settleMax); ; {
		// Neither can fail but by the end, which shows in stop.
		_ = e.news.SetReadDeadline(time.Now().Add(min(patience, time.Until(end))))
		select {
		case <-e.stop:
			return told
		default:
		}
		_, err := e.news.Read(buf[:])
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
			return told
		}
		told, patience = true, settleTime // an overrun of its buffer is news as well
	}
}

// follow puts the program on the interfaces that are there now.
func (e *Engine) follow() {
	present, err := links()
	if err != nil {
		e.cfg.Log.Error("the interfaces could not be listed", "err", err)
		return
	}
	e.present.Store(&present)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	came, err := e.at.follow(&e.cfg, present)
	if len(came) > 0 {
		e.cfg.Log.Info("the kernel engine looks at more interfaces", "interfaces", came)
	}
	if err != nil {
		e.cfg.Log.Error("the kernel engine cannot look at an interface", "err", err)
	}
}

func (e *Engine) checkSecured() {
	n, err := policies()
	if err != nil {
		e.cfg.Log.Error("the IPsec policies could not be counted", "err", err)
	}
	if now := n > 0 || err != nil; e.secured.Swap(now) != now && now {
		e.cfg.Log.Warn("there are IPsec policies: media stays with the sockets, since the kernel engine would pass them by", "policies", n)
	}
}

// checkWays withdraws the flows whose way out is not what it was.
func (e *Engine) checkWays() {
	for place := range e.live {
		f := e.live[place].Load()
		if f == nil {
			continue
		}
		w, err := e.way(f.out[0], f.out[1])
		if err != nil || w != f.way || e.secured.Load() {
			f.sink.Withdraw()
		}
	}
}

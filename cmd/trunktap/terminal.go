package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// columns returns the width of a terminal; false when w is none.
func columns(w io.Writer) (int, bool) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, false
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	if size.Col == 0 {
		return 80, true
	}
	return int(size.Col), true
}

// clean makes text of others fit for a terminal: a SIP peer must not be able
// to move the cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '�'
		}
		return r
	}, s)
}

const progressEvery = 200 * time.Millisecond

// progress rewrites one line of a terminal. The zero value is silent.
type progress struct {
	w     io.Writer
	width int // of the line that stands there
	last  time.Time
}

// newProgress tells nothing when w is no terminal, unless it is forced.
func newProgress(w io.Writer, force bool) *progress {
	if _, ok := columns(w); ok || force {
		return &progress{w: w}
	}
	return &progress{}
}

// tell shows how far a task is, not more often than a person can read.
func (p *progress) tell(format string, a ...any) {
	if p.w == nil || time.Since(p.last) < progressEvery {
		return
	}
	p.last = time.Now()
	p.line(fmt.Sprintf(format, a...))
}

func (p *progress) line(text string) {
	_, _ = fmt.Fprintf(p.w, "\r%-*s", p.width, text) // nobody is left to tell
	p.width = len(text)
}

// done wipes the line.
func (p *progress) done() {
	if p.w != nil && p.width > 0 {
		p.line("")
		_, _ = fmt.Fprint(p.w, "\r")
		p.width = 0
	}
}

// of prints "3 of 7" or "3" when the total is not known.
func of(done, total int64) string {
	if total > 0 {
		return fmt.Sprintf("%d of %d", done, total)
	}
	return fmt.Sprint(done)
}

package mix

// memory keeps the marks that were emitted last, so that what becomes known
// later can correct them.
type memory struct {
	marks   []Mark // rising, disjoint, at most MarksMax
	scratch []Mark
	out     []Resolution // since the last drain
	drained bool         // out was given away: clear it before the next use
}

func (m *memory) remember(k Mark) {
	if n := len(m.marks); n > 0 {
		last := &m.marks[n-1]
		if last.At+int64(last.N) == k.At && last.Cause == k.Cause {
			last.N += k.N
			return
		}
		if n >= MarksMax {
			m.marks = m.marks[:copy(m.marks, m.marks[1:])]
		}
	}
	m.marks = append(m.marks, k)
}

func (m *memory) drain() []Resolution {
	if m.drained {
		m.out = m.out[:0]
	}
	m.drained = true
	return m.out
}

// report adds a resolution.
func (m *memory) report(r Resolution) {
	if m.drained {
		m.out, m.drained = m.out[:0], false
	}
	if n := len(m.out); n > 0 {
		last := &m.out[n-1]
		if last.To == r.From && last.Cause == r.Cause && last.Withdrawn == r.Withdrawn {
			last.To = r.To
			return
		}
		if n >= ResolutionsMax {
			return
		}
	}
	m.out = append(m.out, r)
}

// late relabels marks of absence and loss where the indices [from, to) lie.
func (t *Track) late(r *run, from, to int64) {
	if r.placed {
		t.resolve(r.position(from), r.position(to), Resolution{Cause: Late}, false)
	}
}

// resolve corrects the marks in [from, to), as far as that was read. With
// create, what had no mark gets one.
func (t *Track) resolve(from, to int64, as Resolution, create bool) {
	to = min(to, t.cursor)
	m := &t.marks
	if from = max(from, 0); from >= to {
		return
	}
	if n := len(m.marks); !create && (n == 0 || m.marks[n-1].At+int64(m.marks[n-1].N) <= from || m.marks[0].At >= to) {
		return
	}
	m.scratch = m.scratch[:0]
	at := from // resolved up to here
	for _, k := range m.marks {
		end := k.At + int64(k.N)
		a, b := max(k.At, from), min(end, to)
		if a >= b {
			if k.At >= to {
				t.create(at, to, as, create)
				at = to
			}
			m.keep(k)
			continue
		}
		t.create(at, a, as, create)
		at = b
		m.keep(Mark{k.At, int(a - k.At), k.Cause, k.Concealed})
		t.relabel(Mark{a, int(b - a), k.Cause, k.Concealed}, as)
		m.keep(Mark{b, int(end - b), k.Cause, k.Concealed})
	}
	t.create(at, to, as, create)
	if over := len(m.scratch) - MarksMax; over > 0 {
		m.scratch = m.scratch[:copy(m.scratch, m.scratch[over:])]
	}
	m.marks, m.scratch = m.scratch, m.marks
}

// keep adds a mark to the list being rebuilt.
func (m *memory) keep(k Mark) {
	if k.N <= 0 || len(m.scratch) == 2*MarksMax {
		return
	}
	if n := len(m.scratch); n > 0 {
		last := &m.scratch[n-1]
		if last.At+int64(last.N) == k.At && last.Cause == k.Cause && last.Concealed == k.Concealed {
			last.N += k.N
			return
		}
	}
	m.scratch = append(m.scratch, k)
}

// relabel corrects one mark. Absence is only ever a guess; loss may turn out to
// be late; the other causes are certain.
func (t *Track) relabel(k Mark, as Resolution) {
	guess := k.Cause == Absent || k.Cause == Loss && as.Cause == Late && !as.Withdrawn
	if !guess || k.Cause == as.Cause && !as.Withdrawn {
		t.marks.keep(k)
		return
	}
	as.From, as.To = k.At, k.At+int64(k.N)
	t.marks.report(as)
	if !as.Withdrawn {
		k.Cause = as.Cause
		t.marks.keep(k)
	}
}

// create makes a mark of what had none.
func (t *Track) create(from, to int64, as Resolution, create bool) {
	if !create || from >= to {
		return
	}
	t.missed(from, to, as.Cause, func(a, b int64) {
		as.From, as.To = a, b
		t.marks.report(as)
		t.marks.keep(Mark{At: a, N: int(b - a), Cause: as.Cause})
	})
}

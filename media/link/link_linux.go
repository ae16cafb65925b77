package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/afpacket"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/media/pcap"
)

// Link is a capture of one or several interfaces. NextFrame is for one
// goroutine; Close may be called by another.
type Link struct {
	Counters Counters

	cfg    Config
	closed chan struct{}
	once   sync.Once

	// of the goroutine that reads
	ring    *afpacket.TPacket // nil: to be opened
	members int               // socket that holds the promiscuous mode of the interfaces; -1: none
	wanted  map[int]string    // interfaces by index, those of the ring
	read    uint              // frames since the losses were asked for
	lost    uint64            // losses of the ring that were told
	unsaid  uint64            // losses to be told with the next frame
	retry   time.Time
	checked time.Time
}

// lossEvery is after how many frames the kernel is asked for losses: it has
// counted a loss long before a frame behind it is read, for what filled the ring
// lies between.
const lossEvery = 64

// Open opens the interfaces. CAP_NET_RAW is needed.
func Open(cfg Config) (*Link, error) {
	if n := len(cfg.Interfaces); n == 0 || n > InterfacesMax {
		return nil, fmt.Errorf("capture: %d interfaces, 1 to %d can be read", n, InterfacesMax)
	}
	l := &Link{cfg: cfg, closed: make(chan struct{}), members: -1}
	if err := l.open(true); err != nil {
		l.shut()
		return nil, err
	}
	return l, nil
}

// find looks up an interface that can be read.
func find(name string) (*net.Interface, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", name, err)
	}
	if i.Flags&net.FlagUp == 0 {
		return nil, fmt.Errorf("capture on %s: the interface is down", name)
	}
	return i, nil
}

// open opens the ring on the interfaces: on all, or on those that are there.
func (l *Link) open(all bool) error {
	l.wanted = map[int]string{}
	var loops []int
	var missing error
	for _, name := range l.cfg.Interfaces {
		i, err := find(name)
		if err != nil {
			missing = err
			continue
		}
		if i.Flags&net.FlagLoopback != 0 {
			loops = append(loops, i.Index)
		}
		l.wanted[i.Index] = name
	}
	if missing != nil && (all || len(l.wanted) == 0) {
		return missing
	}
	opts := []any{
		afpacket.OptFrameSize(frameBytes), afpacket.OptBlockSize(blockBytes),
		afpacket.OptNumBlocks(max(l.cfg.RingBytes, RingBytesMin) / blockBytes),
		afpacket.OptBlockTimeout(blockWait), afpacket.OptPollTimeout(idleAfter), afpacket.TPacketVersion3,
	}
	if len(l.cfg.Interfaces) == 1 {
		opts = append(opts, afpacket.OptInterface(l.cfg.Interfaces[0]))
	}
	ring, err := afpacket.NewTPacket(opts...)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("capture on %v: %w (CAP_NET_RAW is needed)", l.cfg.Interfaces, err)
	}
	if err != nil {
		return fmt.Errorf("capture on %v: %w", l.cfg.Interfaces, err)
	}
	l.ring, l.read, l.lost = ring, 0, 0
	program, err := filter(l.wanted, loops)
	if err == nil {
		err = ring.SetBPF(program)
	}
	if err == nil && l.cfg.Promiscuous {
		err = l.join()
	}
	if err != nil {
		return fmt.Errorf("capture on %v: %w", l.cfg.Interfaces, err)
	}
	return nil
}

// filter passes what passes the interfaces. A loopback interface shows each
// frame twice, as it leaves and as it comes: the first is left out.
func filter(wanted map[int]string, loops []int) ([]bpf.RawInstruction, error) {
	var p []bpf.Instruction
	for i := range wanted {
		loop := false
		for _, l := range loops {
			loop = loop || l == i
		}
		p = append(p, bpf.LoadExtension{Num: bpf.ExtInterfaceIndex})
		if !loop {
			p = append(p, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(i), SkipTrue: 1}, bpf.RetConstant{Val: snapBytes})
			continue
		}
		p = append(p, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(i), SkipTrue: 4},
			bpf.LoadExtension{Num: bpf.ExtType}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 1},
			bpf.RetConstant{Val: snapBytes}, bpf.RetConstant{Val: 0})
	}
	return bpf.Assemble(append(p, bpf.RetConstant{Val: 0}))
}

// join makes the interfaces take frames for other hosts, for as long as the
// socket is open: the kernel counts who wants it.
func (l *Link) join() (err error) {
	if l.members, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	for i, name := range l.wanted {
		m := &unix.PacketMreq{Ifindex: int32(i), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(l.members, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, m); err != nil {
			return fmt.Errorf("promiscuous mode of %s: %w", name, err)
		}
	}
	return nil
}

// shut gives the ring up.
func (l *Link) shut() {
	if l.ring != nil {
		l.losses()
		l.ring.Close()
		l.ring = nil
	}
	if l.members >= 0 {
		_ = unix.Close(l.members) // read by nobody
		l.members = -1
	}
}

// NextFrame implements pcap.Frames. It waits a tenth of a second at most.
func (l *Link) NextFrame() (pcap.Frame, error) {
	for {
		select {
		case <-l.closed:
			l.shut()
			return pcap.Frame{}, io.EOF
		default:
		}
		if l.ring == nil {
			return l.reopen(), nil
		}
		data, info, err := l.ring.ZeroCopyReadPacketData()
		switch {
		case err == nil:
			if !l.present() { // one of several; the others are busy
				l.regain()
				return l.idle(), nil
			}
			if f, ok := l.frame(data, info); ok {
				return f, nil
			}
		case errors.Is(err, afpacket.ErrTimeout) && l.present():
			l.losses()
			return l.idle(), nil
		default: // the interface went away, or came
			l.regain()
			return l.idle(), nil
		}
	}
}

func (l *Link) frame(data []byte, info gopacket.CaptureInfo) (pcap.Frame, bool) {
	if l.read++; l.read%lossEvery == 0 {
		l.losses()
	}
	if _, ok := l.wanted[info.InterfaceIndex]; !ok {
		return pcap.Frame{}, false // came before the filter was there
	}
	l.Counters.Frames.Add(1)
	now := time.Now() // its monotonic reading is what a step of the clock does not touch
	f := pcap.Frame{At: now.Add(info.Timestamp.Sub(now)), Data: data, Cut: info.Length > len(data), Lost: l.unsaid}
	if f.At.After(now) {
		f.At = now
	}
	l.unsaid = 0
	return f, true
}

func (l *Link) idle() pcap.Frame {
	f := pcap.Frame{At: time.Now(), Idle: true, Lost: l.unsaid}
	l.unsaid = 0
	return f
}

// losses asks the kernel what had no room.
func (l *Link) losses() {
	_, s, err := l.ring.SocketStats()
	if err != nil {
		return // it will be told the next time
	}
	if n := uint64(s.Drops()) - l.lost; n > 0 {
		l.lost += n
		l.unsaid += n
		l.Counters.Lost.Add(n)
	}
}

// present tells whether the interfaces are still those that were opened: one
// that was made anew has another index, and a ring on several hears nothing of it.
func (l *Link) present() bool {
	now := time.Now()
	if now.Sub(l.checked) < reopenAfter {
		return true
	}
	l.checked = now
	there := 0
	for _, name := range l.cfg.Interfaces {
		i, err := find(name)
		if err != nil {
			continue
		}
		if there++; l.wanted[i.Index] != name {
			return false
		}
	}
	return there == len(l.wanted)
}

// regain gives the ring up, to be opened again on what is there.
func (l *Link) regain() {
	l.shut()
	if !l.Counters.Down.Load() {
		l.Counters.Gone.Add(1)
	}
}

// reopen tries to open the interfaces again, and tells the time meanwhile.
func (l *Link) reopen() pcap.Frame {
	if now := time.Now(); now.Sub(l.retry) >= reopenAfter {
		l.retry = now
		if err := l.open(false); err == nil {
			l.Counters.Down.Store(len(l.wanted) < len(l.cfg.Interfaces))
			return l.idle()
		}
		l.shut()
		l.Counters.Down.Store(true)
	}
	select {
	case <-l.closed:
	case <-time.After(idleAfter):
	}
	return l.idle()
}

// Close ends NextFrame, which gives the ring up.
func (l *Link) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

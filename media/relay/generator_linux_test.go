package relay

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The parties of BenchmarkLoad: a process that sends and receives whole frames
// by packet sockets, so that it costs little and the same whatever the relay does.

const generatorEnv = "TRUNKTAP_RELAY_GENERATOR"

// loadJob is a line that the parties are told: who they are talking to, or what to do.
type loadJob struct {
	MAC     string      // of the relay
	Calls   [][2]uint16 // the relay's ports
	Seconds float64
	Direct  bool // to each other, without the relay
}

// loadResult is a line that they answer: after a job, one when the measured
// window begins and one when it is over.
type loadResult struct {
	MAC            string
	Sent, Received uint64
	Window         time.Duration
	CPU            time.Duration // of the process, in the window
	P50, P99, P999 time.Duration
	Disordered     uint64
}

// Ethernet, IPv4, UDP, RTP and 20 ms of G.711; the time of sending is the
// payload's first eight bytes.
const (
	frameUDP     = 14 + 20
	frameRTP     = frameUDP + 8
	framePayload = frameRTP + 12
	frameBytes   = framePayload + 160

	frameSlots = 100 // moments of a packet interval that packets are sent at

	// frameInterval is not quite 20 ms: in step with the kernel's tick the same
	// moment of the work would be sampled each time.
	frameInterval = 20003 * time.Microsecond

	ringBlocks, ringBlockBytes = 64, 1 << 20
)

func init() {
	if os.Getenv(generatorEnv) == "" {
		return
	}
	if err := generate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

type parties struct {
	relay, self, near net.HardwareAddr // near and far are ends of a pair of its own
	far               net.HardwareAddr
	from, until       atomic.Int64 // the window, Unix ns
}

func generate() error {
	p := &parties{}
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var j loadJob
		if err := json.Unmarshal(in.Bytes(), &j); err != nil {
			return err
		}
		var r loadResult
		var err error
		switch {
		case j.MAC != "":
			p.relay, err = net.ParseMAC(j.MAC)
		case j.Seconds > 0:
			r, err = p.talk(j, func() { _ = out.Encode(loadResult{}) })
		default:
			err = p.setUp()
			r.MAC = p.self.String()
		}
		if err != nil {
			return err
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return in.Err()
}

func (p *parties) setUp() error {
	for _, line := range []string{
		"sysctl -qw net.ipv6.conf.all.disable_ipv6=1",
		"ip link add near0 type veth peer name far0",
		"ip link set near0 up", "ip link set far0 up", "ip link set party0 up",
	} {
		f := strings.Fields(line)
		if text, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, text)
		}
	}
	for name, mac := range map[string]*net.HardwareAddr{"party0": &p.self, "near0": &p.near, "far0": &p.far} {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		*mac = ifi.HardwareAddr
	}
	return nil
}

// talk runs a job: both sides of all calls.
func (p *parties) talk(j loadJob, begun func()) (r loadResult, err error) {
	device, arrives := "party0", "party0"
	if j.Direct {
		device, arrives = "near0", "far0"
	}
	ring, err := openRing(arrives, len(j.Calls))
	if err != nil {
		return r, err
	}
	defer ring.close()
	p.from.Store(1 << 62)
	p.until.Store(1 << 62)
	var senders [2]*partySender
	for side := range senders {
		if senders[side], err = p.newSender(device, side, j); err != nil {
			return r, err
		}
		go senders[side].run(p)
	}
	stop, drained := make(chan struct{}), make(chan struct{})
	go func() { defer close(drained); ring.drainUntil(stop, p) }()
	time.Sleep(labWarmUp)
	begun()
	cpu, _ := selfUsage(unix.RUSAGE_SELF)
	from := time.Now()
	p.from.Store(from.UnixNano())
	time.Sleep(time.Duration(j.Seconds * float64(time.Second)))
	p.until.Store(time.Now().UnixNano())
	cpu2, _ := selfUsage(unix.RUSAGE_SELF)
	r.Window, r.CPU = time.Since(from), cpu2-cpu
	time.Sleep(300 * time.Millisecond)
	for _, s := range senders {
		s.stop.Store(true)
		<-s.done
		r.Sent += s.sent
	}
	close(stop)
	<-drained
	r.Received, r.Disordered = ring.received, ring.disordered
	slices.Sort(ring.delays)
	if n := len(ring.delays); n > 0 {
		r.P50, r.P99, r.P999 = ring.delays[n/2], ring.delays[n*99/100], ring.delays[n*999/1000]
	}
	return r, nil
}

func (p *parties) inWindow(stamp int64) bool { return stamp >= p.from.Load() && stamp < p.until.Load() }

// partySender sends the packets of one side, each at its own moment.
type partySender struct {
	fd    int
	cpu   int
	slots [frameSlots][][]byte
	sent  uint64 // in the window
	stop  atomic.Bool
	done  chan struct{}
}

func (p *parties) newSender(device string, side int, j loadJob) (*partySender, error) {
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index}); err != nil {
		return nil, err
	}
	s := &partySender{fd: fd, cpu: side % runtime.NumCPU(), done: make(chan struct{})}
	from, to := p.self, p.relay
	if j.Direct {
		from, to = p.near, p.far
	}
	for call, ports := range j.Calls {
		at := (call*61 + side*31) % frameSlots
		s.slots[at] = append(s.slots[at], newFrame(from, to, labPort+uint16(4*call+2*side), ports[side], uint32(2*call+side)))
	}
	return s, nil
}

func newFrame(from, to net.HardwareAddr, src, dst uint16, ssrc uint32) []byte {
	b := make([]byte, frameBytes)
	copy(b, to)
	copy(b[6:], from)
	be := binary.BigEndian
	be.PutUint16(b[12:], unix.ETH_P_IP)
	ip := b[14:frameUDP]
	ip[0], ip[6], ip[8], ip[9] = 0x45, 0x40, 64, unix.IPPROTO_UDP
	be.PutUint16(ip[2:], frameBytes-14)
	party, relay := labParty.As4(), labRelay.As4()
	copy(ip[12:], party[:])
	copy(ip[16:], relay[:])
	be.PutUint16(ip[10:], ^sum16(ip, 0))
	be.PutUint16(b[frameUDP:], src)
	be.PutUint16(b[frameUDP+2:], dst)
	be.PutUint16(b[frameUDP+4:], frameBytes-frameUDP)
	b[frameRTP] = 0x80
	be.PutUint32(b[frameRTP+8:], ssrc)
	return b
}

// sum16 is the ones' complement sum of RFC 1071.
func sum16(b []byte, s uint32) uint16 {
	for ; len(b) > 0; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	s = s>>16 + s&0xFFFF
	return uint16(s>>16 + s)
}

// run has a thread that is preferred to everything ordinary, so that packets
// leave at their moments whatever the relay does.
func (s *partySender) run(p *parties) {
	defer close(s.done)
	defer func() { _ = unix.Close(s.fd) }()
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	var set unix.CPUSet
	set.Set(s.cpu)
	_ = unix.SchedSetaffinity(0, &set) // without, as well as it goes
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20)
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	begin := time.Now()
	for k := 0; !s.stop.Load(); k++ {
		if wait := time.Until(begin.Add(frameInterval * time.Duration(k) / frameSlots)); wait > 0 {
			ts := unix.NsecToTimespec(int64(wait))
			_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0) // an early end is made up by the next
		}
		for _, b := range s.slots[k%frameSlots] {
			s.send(p, b)
		}
	}
}

func (s *partySender) send(p *parties, b []byte) {
	be := binary.BigEndian
	be.PutUint16(b[frameRTP+2:], be.Uint16(b[frameRTP+2:])+1)
	be.PutUint32(b[frameRTP+4:], be.Uint32(b[frameRTP+4:])+160)
	now := time.Now().UnixNano()
	be.PutUint64(b[framePayload:], uint64(now))
	be.PutUint16(b[frameUDP+6:], 0)
	pseudo := uint32(unix.IPPROTO_UDP + frameBytes - frameUDP)
	be.PutUint16(b[frameUDP+6:], ^sum16(b[26:], pseudo)) // addresses and all that follows
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), frameBytes, unix.MSG_DONTWAIT, 0, 0)
	if errno == 0 && p.inWindow(now) {
		s.sent++
	}
}

// partyRing is a ring that the kernel fills with frames and their times, read
// without a system call.
type partyRing struct {
	fd         int
	memory     []byte
	block      int
	last       []uint16 // sequence numbers by SSRC
	received   uint64
	disordered uint64
	delays     []time.Duration
}

func openRing(device string, calls int) (*partyRing, error) {
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	r := &partyRing{last: make([]uint16, 2*calls), delays: make([]time.Duration, 0, 2<<20)}
	if r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, err
	}
	req := unix.TpacketReq3{
		Block_size: ringBlockBytes, Block_nr: ringBlocks, Frame_size: 2048,
		Frame_nr: ringBlockBytes / 2048 * ringBlocks, Retire_blk_tov: 20,
	}
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return nil, err
	}
	if err := unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, err
	}
	if r.memory, err = unix.Mmap(r.fd, 0, ringBlockBytes*ringBlocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, err
	}
	return r, unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifi.Index})
}

func (r *partyRing) close() {
	_ = unix.Munmap(r.memory)
	_ = unix.Close(r.fd)
}

func (r *partyRing) drainUntil(stop chan struct{}, p *parties) {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-stop:
			r.drain(p)
			return
		case <-t.C:
			r.drain(p)
		}
	}
}

func (r *partyRing) drain(p *parties) {
	for {
		block := r.memory[r.block*ringBlockBytes:][:ringBlockBytes]
		status := (*uint32)(unsafe.Pointer(&block[8]))
		if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
			return
		}
		h := (*unix.TpacketHdrV1)(unsafe.Pointer(&block[8]))
		at := h.Offset_to_first_pkt
		for range h.Num_pkts {
			f := (*unix.Tpacket3Hdr)(unsafe.Pointer(&block[at]))
			frame := block[at+uint32(f.Mac):][:f.Snaplen]
			r.take(p, frame, int64(f.Sec)*1e9+int64(f.Nsec))
			at += f.Next_offset
		}
		atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
		r.block = (r.block + 1) % ringBlocks
	}
}

func (r *partyRing) take(p *parties, b []byte, at int64) {
	if len(b) != frameBytes || b[23] != unix.IPPROTO_UDP {
		return
	}
	be := binary.BigEndian
	ssrc, seq, stamp := be.Uint32(b[frameRTP+8:]), be.Uint16(b[frameRTP+2:]), int64(be.Uint64(b[framePayload:]))
	if int(ssrc) >= len(r.last) {
		return
	}
	if int16(seq-r.last[ssrc]) < 0 {
		r.disordered++
	}
	r.last[ssrc] = seq
	if p.inWindow(stamp) {
		r.received++
		r.delays = append(r.delays, time.Duration(at-stamp))
	}
}

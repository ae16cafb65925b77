package siptest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// srcConn carries the messages of a recording client: one with each read and write.
type srcConn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	LocalAddr() net.Addr
	Close() error
}

// tcpConn is a connection as an srcConn.
type tcpConn struct {
	net.Conn
	data []byte // read, not yet given out
}

// dial connects to the server.
func (c *SRCConfig) dial(from netip.AddrPort) (*tcpConn, error) {
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Timeout: 20 * time.Second}
	conn, err := dialer.Dial("tcp", c.Remote.String())
	if err == nil && c.TLS != nil {
		secure := tls.Client(conn, c.TLS)
		if err = secure.Handshake(); err != nil {
			err = errors.Join(err, conn.Close())
		}
		conn = secure
	}
	if err != nil {
		return nil, fmt.Errorf("connect a recording client: %w", err)
	}
	return &tcpConn{Conn: conn}, nil
}

// ReadFromUDPAddrPort implements srcConn.
func (c *tcpConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return 0, from, err
	}
	for {
		if m, n, err := parse(c.data, true); err == nil && m != nil {
			whole := copy(b, c.data[:n])
			c.data = c.data[n:]
			return whole, from, nil
		}
		chunk := make([]byte, 4096)
		n, err := c.Read(chunk)
		if err != nil {
			return 0, from, err
		}
		c.data = append(c.data, chunk[:n]...)
	}
}

// WriteToUDPAddrPort implements srcConn.
func (c *tcpConn) WriteToUDPAddrPort(b []byte, _ netip.AddrPort) (int, error) { return c.Write(b) }

"""URLs that lead, or could be read to lead, where no caller may: each must be refused by what it says itself."""

LOOPBACK = (
    "127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "127.000.000.001", "0127.0.0.1", "0177.0.0.1", "0177.0.0.01",
    "0x7f.0.0.1", "0X7F.0.0.1", "0x7f.1", "0x7f000001", "0x7f.0x0.0x0.0x1", "2130706433", "017700000001",
    "0x0000007f.1",
    "127.255.255.254", "127.0.0.1.0", "00000127.0.0.1", "127.0.0.01", "0", "0.0.0.0", "0x0", "00", "0.0", "0x", "1",
    "256",
    "4294967295", "4294967296", "99999999999", "1.2.3.256", "1.2.3.4.5", "08.8.8.8", "8.8.8.08", "0x8.8.8.8",
    "8.8.2056",
    "134744072", "localhost", "LOCALHOST", "localhost.", "LocalHost.", "a.localhost", "localhost.localdomain",
    "ip6-localhost",
    "[::1]", "[0:0:0:0:0:0:0:1]", "[::0001]", "[0000::1]", "[::]", "[::127.0.0.1]", "[::7f00:1]",
)  # fmt: skip

PRIVATE = (
    "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.1.1.", "100.64.0.1",
    "100.127.0.1",
    "169.254.0.1", "198.18.0.1", "198.19.255.255", "192.0.0.1", "192.0.2.1", "198.51.100.7", "203.0.113.9",
    "192.88.99.1",
    "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "0.1.2.3", "012.0.0.1", "0xa.0.0.1", "0xa000001",
    "167772161",
    "0xc0a80001", "3232235521", "030052000001", "[fc00::1]", "[fd00::1]", "[fdff::]", "[fe80::1]", "[fe80::1%25eth0]",
    "[fe80::1%eth0]", "[febf::1]", "[fec0::1]", "[ff02::1]", "[ff0e::1]", "[2001:db8::1]", "[3fff::1]", "[5f00::1]",
    "[100::1]", "[2001:2::1]", "[2001:10::1]", "[2001:20::1]", "[4000::1]", "[::2]", "[1::]",
)  # fmt: skip

METADATA = (
    "169.254.169.254", "169.254.169.254.", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "0xa9.0xfe.0xa9.0xfe",
    "169.254.43518", "169.16689662", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[0:0:0:0:0:ffff:a9fe:a9fe]",
    "[::169.254.169.254]", "[64:ff9b::169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]",
    "[fd00:ec2::254]",
    "100.100.100.200", "192.0.0.192", "168.63.129.16", "metadata", "metadata.google.internal",
    "METADATA.GOOGLE.INTERNAL.",
    "instance-data", "metadata.local",
)  # fmt: skip

EMBEDDED = (
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::FFFF:127.0.0.1]", "[::ffff:10.0.0.1]", "[::ffff:8.8.8.8]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]", "[64:ff9b::10.0.0.1]", "[64:ff9b::c0a8:1]", "[64:ff9b:1::7f00:1]", "[64:ff9b:1::8.8.8.8]",
    "[2002:7f00:1::]", "[2002:a00:1::1]", "[2002:c0a8:101::1]", "[2002:808:808::1]", "[2001::1]",
    "[2001:0:7f00:1::]", "[2001:0:4136:e378:8000:63bf:3fff:fdd2]", "[2001:0:0:0:0:0:f5ff:fffe]",
)  # fmt: skip

NAMES = (
    "redis", "postgres", "kubernetes", "kubernetes.default.svc.cluster.local", "printer.local", "router.lan",
    "nas.home",
    "db.internal", "x.home.arpa", "1.0.0.127.in-addr.arpa", "hidden.onion", "a.test", "a.invalid", "a.example",
    "wiki.intranet",
    "vault.private", "name.alt",
)  # fmt: skip

MALFORMED = (
    "", ".", "..", "example..com", ".example.com", "example.com..", "-a.com", "a-.com", "exa mple.com",
    "example.com%2f",
    "%6c%6f%63%61%6c%68%6f%73%74", "127.0.0.1%00.example.com", "ex%61mple.com", "a" * 64 + ".com", "a.b" * 90 + ".com",
    "\uff11\uff12\uff17.0.0.1", "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3", "127\u30020\u30020\u30021",
    "b\u00fccher.example.com", "ex\u00adample.com", "example.com\u200b", "l\u043ecalhost",
    "[::1", "::1", "::1]", "[]", "[127.0.0.1]", "[::1]]", "[[::1]]", "[::g]", "[v1.x]", "[::1].example.com", "[::1%25]",
    "2001:db8::1", "a,b.com", "a;b.com", "a!b.com", "a*b.com", "a~b.com", "a'b.com", "a(b).com", "a=b.com",
)  # fmt: skip

PORTS = (
    "example.com:0", "example.com:1", "example.com:21", "example.com:22", "example.com:23", "example.com:25",
    "example.com:53",
    "example.com:110", "example.com:389", "example.com:445", "example.com:587", "example.com:873", "example.com:1023",
    "example.com:2049", "example.com:5060", "example.com:6000", "example.com:6667", "example.com:10080",
    "example.com:65536",
    "example.com:99999", "example.com:100000", "example.com:-80", "example.com:80:80", "example.com:+80",
    "example.com:0x50",
    "example.com: 80", "example.com:\uff18\uff10", "127.0.0.1:80", "127.0.0.1:6379", "[::1]:80", "localhost:9200",
)  # fmt: skip

WHOLE = (
    "http://user@example.com/", "http://user:secret@example.com/", "http://@example.com/", "http://:@example.com/",
    "http://example.com@127.0.0.1/", "http://127.0.0.1@example.com/", "http://example.com:80@127.0.0.1/",
    "http://a@b@example.com/", "http://example.com\\@127.0.0.1/", "http://127.0.0.1\\@example.com/",
    "http://example.com\\.evil.com/",
    "http:\\\\127.0.0.1\\", "http:/\\127.0.0.1/", "http:///127.0.0.1/", "http:////127.0.0.1/", "http:127.0.0.1",
    "http:/127.0.0.1",
    "http://", "http:", "http", "//example.com/", "//127.0.0.1/", "/etc/passwd", "", " http://example.com/",
    "http://example.com/ ",
    "http://exam\tple.com/", "http://example.com/\n", "http://example.com/\r\nHost: 127.0.0.1",
    "http://example.com/\x00",
    "http://example.com/a b", "http://example.com/\"x", "http://example.com/<x>", "http://example.com/\ud800",
    "\x00http://example.com",
    "http://#@127.0.0.1/", "http://?@127.0.0.1/", "http://127.0.0.1#@example.com/", "http://127.0.0.1?@example.com/",
    "http://127.0.0.1;@example.com/", "http://example.com&@127.0.0.1/", "http://[::1]@example.com/",
    "http://0x7f.1#.example.com",
    "ftp://example.com/", "file:///etc/passwd", "file://localhost/etc/passwd", "gopher://127.0.0.1:6379/_INFO",
    "dict://127.0.0.1:11211/",
    "ldap://127.0.0.1/", "jar:http://example.com!/", "javascript:alert(1)", "data:text/plain,x", "ws://example.com/",
    "wss://example.com/",
    "httpx://example.com/", "https+unix://%2Fvar%2Frun%2Fdocker.sock/", "http+unix://x/", "unix:///var/run/docker.sock",
    "blob:https://example.com/x", "view-source:http://example.com", "about:blank", "tftp://10.0.0.1/x",
    "sftp://example.com/",
    "smb://example.com/", "netdoc:///etc/passwd", "url:http://127.0.0.1", "hTTp://127.0.0.1", "HTTPS://LOCALHOST/",
    "http://example.com/" + "a" * 8192,
)  # fmt: skip

HOSTILE = tuple(
    dict.fromkeys(
        (
            *(
                f"http://{host}/x.png"
                for host in (*LOOPBACK, *PRIVATE, *METADATA, *EMBEDDED, *NAMES, *MALFORMED, *PORTS)
            ),
            *(f"https://{host}" for host in (*METADATA, *EMBEDDED)),
            *WHOLE,
        )
    )
)

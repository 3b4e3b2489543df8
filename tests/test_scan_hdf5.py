"""HDF5: real files pass to the last byte; what leaves the file, loads code or lies about the map does not."""

import base64
import json
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire import damaged, judge, rules

MAGIC = b"\x89HDF\r\n\x1a\n"
NONE = b"\xff" * 8

# Two files as h5py 3.16 writes them, for old readers and for new ones: groups (twelve in one, ten attributes on
# another), texts of variable length, chunks with gzip, a soft link, a Keras model with a layer named lambda_1.
OLD = """
c-rk<O>7fK6yCKHXA=T45)z@Uz%?AKs*sq3;80abA<(U$O@OG4h|<`^HV$>-
BpV=vrZu8J2GKTBIpoyl=%Wuk^vKbN9&+T!p$8vx<WPyOy>D#K+aIsMvDeD`q-Z?5@6C*Nzj@!AvEzL#k6zl}^-
h;igd_=Vf>)@<YryIjUuWmTP>N7ypv=11@%GZW9ysoW_I+-
x9stLQYZosTtzRRQ2hzh8ggplN;wR(9auVtxDDy7fE*ZHWTUG?&)|ytoms*ahRY6I`SBmvsIHAl&l9A;KZ+#~H9t6H(UUv&J@cV#pNRWhYV#^U_=
C0cJTxvl*enb>Yp5F4@khpo`sT?XD>lPC5x?63pM|&SL3z7MlQaWzho~YH>WniUL)xMkgNEMsP`1hB_Kc9-mk~6cZh4|bp!N&OKtJ-
UWaU0F^{07`VSM@x1na=aXyZrs|E@<UAO@Tc%&vQ^;WjZs@=8DMijLpx<6xc6W+il#@>bZM-zh?IG5v|_WVH}5;T8?+{?cI$mE7kKwe#`4(Hon|@
T7CPdwO!!@hzlqAc0au^c15guBV2q^(SIs<=2Wl}SJ?TRLM66Tg#tBh&EJehW`b?iaYDrd|7<d%D5Z$zKj-
sbk1gGaEv(E%lKu~Uel6~(#~=8$0It5A!Y-q+1to^8**Vs&e|>#=eO>LZ-DJG%eRV>aQcfxNm6aG9XNQTORKu^+#ILJ{A4B>8&3yuaKp+qZ1OkCT
AnYEle=#;%+@ojv7~bEl?b$k5ZsXUxi%{Qy1$G}CPyA`!o)1d456Jcz0?3Z-
XH5R#%<EX|^9%VHfBgu1ah`d~_h0JZ=MUazWb<(w+2MUWwhx*4j<?G}eLD^F5RPYm=IyqjzVn!$XD|DCJ81ys<sd(Ag^zi=0MzB-
=FGFL_i3K(Wti>H?;Pdrm_F5Oe_os4VwrbYG;i@fJ;504`vUC3iI541F5}NRap_hgSkdyJ@0idAk?OD{9R428x2t!kc;4l5!AGK6#B+-
UKhGG3RR`!sg;yIs;>cda>esX3tplY%CGPg?&ME=z68P^9biyC2OXz$%I`2W}D<6}-
8m7BSAP@+IX7A68^wGMJ){XjgV*q_$s!`wT%0j>SUVHrAJWc#1{_6Q#=xyx2NBSh+KISpOY5N|pT4LWL6C{q*Q(y3Yel2|o50So*zUcKu9&Ap2l!
tx`A$$D&`y=8n@mJ4ZX{fRJ(bgc}KISpOY59?KycP1J>^b5{J@o~DkD->nq|cMSkiO{kB{AHb{HOr^O6TqI_r)mjm-
uV2|9QT#`O))XzJ1JNg46P&o|edu@)w9B_0$*n66l+3PhYk!lfIC?==CKdHzz-mJ_CKbY>&UMJ}3SXe+~9OFE=(ndMWemV;&QnmLCOLB0nlzA&%5
jUlL=WZ&&T<%kv4+7t$BKzGSa9CqD{YgZ3xv@wewI;xF;nVE=QXvH6j3jc*_GnBcVhDAW@9k@O{Tq@Mbcfk2VHVNYLPPLsZnzUcKOf1^41kvs+ZH
f@i;p)m26_-nBLIo;U&$Tx-BM?5AtEkBZ5B0mbu5J&2%FWCs_+pIl(5pI#bkiHoF|Ici5@}oo)^et|Wzms#sU*fO9{%5?g`O!#}Zy)oR;I#Z`vL*
5(IYAt$r@rKGgT5v0>C4U%=?m$L!T<lv?{0p?5G_8uWTp?wAe5(}?1ypy$}><7LU|U-
5R^l#oj$((U{FB%7<!|)<thLEs_zogTlBp@Hh_^aq?_pTZ#ItbByWfJfk)tYI>OuG^$@!+Teo>T92eMgqh5G;JG18i)eAL$4|av(5yc~YJlb4pY`
&XA^8!Cdi{P|;H_;OLZb%`H?1pX>)<`!<H}tx(eQ$U3ShIE5IE0<WHGBLWSttGyfA##`SZi$F6IkWj$2=xDE$>-
viM*%pTjEGP^#wo2qL#i$KajqVz8F0JA>Ew(Xz?NF+ar7Y4gW;^CI0I9n|svQ{78Ptw~u*Da9VzpX^H%3{72$QJ@o}YzpIwM1b!iXA$`&7i}y)$@
}mvtH}}*Yf78Dae~G^a`=3u6n;#{f@a<zB6P%VGZMH;ywD>D=<V{dsZ=>fBcS9r)RpxZ7S2+TK!7DKh8R6zJgU&B#?I)V~owoLKnfdiw`?<~h2CV
(s%>2$+`?Z_-4O;to%>2$;`*oQ4g{=J~Gru8gzs~Y~^jO9x3H5`^N_-kF_cO3h7<lbQ@yV?<xK9X`>Y|JBK`LcRO5#pDo{W{-72$X^7EeZ2V&(f-
j&Clv?^%T!?#htf?uVs|`Ix9)9h{GK*YL|8XZL}J8`b|ZvGbt%b7bc>>GvNKJ8b{L#18lSFS7HP^t)qXhx`4{#16MBoiM&0odV^*1OkCTAP`z*ov
-Doq9_{XJuGiNqMrA{D!n@6uB__?w5~q{nNk>yAmi}sA))o0&2@urUt{HjaYnf5Xny<;q%+XC
"""
NEW = """
c-rk;drTBZ82|QOEO)0K2m)3s9wMlC-top(1%%^#6)GAVTZ9u%iabs@q^O}%(o&@wZ6w-
+YN@6^Dz>(2tcaCHTA!`4CM``(wXKb5Vyd=@<qs3OJ3GTIw}-OHUg{<L5tzB(eDm0u-+lAV&J3GvS=JHSv05cf1Cf3#x-
9Oq8RJ*ahkl!D%UZ0U!YP9R;75wX6L7j#0Spov3@UdSMD%k2lrR!P*u-
*2jonpP=csX&IjbOoqJSw4{c<JJpkV%LxF`}9*B7uw=$Rry04nV395sbi_DYA#djS+hDR8?;Nb?F*5?$J@qo2*<Be*tJI!hcCg~iUQRb{0^HnEad
f(rfpsc)Jc^%2x_-Ju9Z#m8|<tvKX5>0}D`sV)Y$FcTyYQ`v%ZxpQp`xSBl&f*m+>G}a_pZUua@6SvxXF78=0qu9q+)!A!YTS=#8gEX@G=Ax0qX@
Z_@0%bNRaXuSJCJid}1&-
f9QInWKQwTZa87f173W}V7M?Vt6Xb9WL#MDe{m0Fs45+w!UoUVaX)DBO*EDPNiE{+i&s3c~@ThT$KA{b#*OV5b!&ZNxs1tSc8$cUZ|^#*Z__)H@)
BMvup*N9*Q)A^D!;!ex;P2ze%KT+ad*xEDkFl*m6L2MlwG!wd(;JKJJ?`LOmaSP6%8Nn#hl*;8?RjY&<rRyh0DWAb<IdgLtQambBBo7V~OqL{*#m
#P#z7pK?C~p#E=H<$jCH6uKF$R@5++ZxOu)ADn#x~B3H0C?1*E*_d%j^}#xJV;6%`*4~BlkE=^kvU1S&k}~!$X^-k!p<%4FwGi?6+-
*_LAoc#G%t=a;<aKI!HSMhR8=hAz$DS`Ls{SN2GBi$Rdj@vdAKfEV9TVi!8FpB8x0TNd1c9qIP!eYy-;I@j%{-
04)sOKL{jieA@lKfS<1RNY{9z2Mjz>-
yC^VWsyY|S!D6G_+ob}(hqmH`kHGGh}c@%MmBXM+*(=$<t|?ghuIH@WAf$IE#kJ>o{hp;rP^j|I<>S{1S39-lAaN#<6l|q3r3{-
AtM@Z2j_}oL`k&7jL80d)FyW0mEB`Ki5+%wVh8Q9f}(VN+f0nyp51qlXJd!QqC3&jv#8_6aRy(oD9;aB^y#hA6XIC(ag4+)iqKy9HFJqAi#tLV#2
_WHZK-5cN%o6XTV8T{nW=}zqUo{Hv&ek$W{)peROE*&s>nEfNF0mqPm!2K9gf5-YX-
w2Dnv`p7F<i_!nZpfjDD=YH#`=(rb^GE);AmCe8HkMe#oMTvg++3j}pz0m_<c<*X^|~w&kJMPYQSMx!V$i543c~4KX@c^uw%C#mh<I0i{4UaPW0X
^`EDZbyTx@I%FO7(@7nqmiXp9-
PU|Y3rPDY7#zCm%Y%A!5R6ONg^%2hg~8$FkSnIlB@3;f&b_ux0XG<EG(3#?Y8<37(O@W9VVMUpDB4_oq7fFLXl(A9E#O4a>Vvv2C_vGP?{;><M<{
wKaQ&C?28!nB-s^#jsNA0Y5#Pf}gwm~>e})|>>bzdp51}Y}JTACUUYq_eYvEz8|7J*U8#7yv{_P9f*yxA0@lpD+ha%U17Kv@+H-
_DJ#H{};(lcUDs>$RFMr`*(M)da<7{xKdoFKL5Zt4_s{P<Xc^o;mzd`*=v7}4&BjOZ=w|5qF%GLs}`M9T{g%_11_b&~Xq_~mf<abGavs2?&S{!mM
fH6tq%s4l$T>JAsWr&qjSy<V`}Ua<RKut#1nIzotrc)=pQVCm`YyR7;7*#kZ|#W=b5P^9QaCkG*?ogT_*Z^8pTFV*dJ4+??2ZWy-Ht{UvL$FffQY
=Vv1wET0<9VazE-W`t}NV$)%Dv;|4Bz&Nc4n^)b4a-^0N$kS`oX!plfnXkRFDx$#R)8CLe|~=wH1U9rvbD2dCJ)#-p>-)-
;sJkL>T7^8JYe6M#x6+a)$+wVS1-VRp2qozX?Ni-9&lp&q5gA$Im=`xT4HycXVu6RjG;o#s?EWl(;-
m@iTz4!)pWWsKq(ZgIi~R84EBemHEZt}9VMky(n>9{9MJr<^ux{m@`{1J2my4pm0V-
d@Sfe<B~|q73eKX(VOvu~3O?$8oapL$_3l7l;CBg+9d|sNZHXAn73lW=@5k}womJ=_n1LN{^=r<W64!y}FfX{fVXk6(g}vt3^Bi~}eD`%Uv5<LzV
$AjHh$@PyKa989n3<DYNk(!`wWC#u?p!lnZ8w8~hJjw@zyERTSOhwhKqp?HqY&sM2y~PJokW3-N}!V@&`}F?k_9>%fli7*CqST+D$t<?I%xu(K-
tjC@>B@={*!-
HfZoMs%&(*%poG15S!mV{xONz^j8l0a@g|K2l8_kSfh4vWJ&>d$lRS{*e<ph%DQQzYkkpOSJdm_DGeKzFLi3S$PsnmMQ66fq@*gin=i&
"""


def real(text: str) -> bytes:
    return zlib.decompress(base64.b85decode("".join(text.split())))


def u64(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


class File:
    """A writer of small files of the newer kind: every object has a header with messages, and links in it."""

    def __init__(self) -> None:
        self.body = bytearray(48)

    def put(self, content: bytes) -> int:
        self.body += content
        return len(self.body) - len(content)

    def object(self, *messages: tuple[int, bytes], flags: int = 0) -> int:
        inner = b"".join(struct.pack("<BHB", kind, len(body), flags) + body for kind, body in messages)
        return self.put(b"OHDR\2\2" + struct.pack("<I", len(inner)) + inner + bytes(4))

    def dataset(self, values: bytes, *more: tuple[int, bytes], at: int | None = None) -> int:
        address = self.put(values) if at is None else at
        return self.object(SPACE, TYPE, (8, b"\3\1" + u64(address, len(values))), *more)

    def done(self, *messages: tuple[int, bytes], tail: bytes = b"", end: int = 0) -> bytes:
        root = self.object(*messages)
        end = end or len(self.body)
        self.body[:48] = MAGIC + b"\2\x08\x08\0" + u64(0) + NONE + u64(end, root) + bytes(4)
        return bytes(self.body) + tail


SPACE = (1, b"\2\1\0\1" + u64(4))
TYPE = (3, b"\x11\x20\x1f\0" + struct.pack("<I", 4) + bytes(12))
SCALAR = b"\2\0\0\0"


def link(name: str, target: bytes, kind: int = 0) -> tuple[int, bytes]:
    return 6, bytes([1, 8 if kind else 0]) + (bytes([kind]) if kind else b"") + bytes(
        [len(name)]
    ) + name.encode() + target


def text(name: str, value: bytes, kind: int = 3) -> tuple[int, bytes]:
    """An attribute that is one text of fixed length."""
    label, form = name.encode() + b"\0", bytes([0x10 | kind, 0, 0, 0]) + struct.pack("<I", len(value))
    return 0x0C, b"\3\0" + struct.pack(
        "<3H", len(label), len(form), len(SCALAR)
    ) + b"\0" + label + form + SCALAR + value


def pipeline(number: int) -> tuple[int, bytes]:
    name = struct.pack("<H", 5) if number >= 256 else b""
    return 0x0B, b"\2\1" + struct.pack("<H", number) + name + struct.pack("<2H", 0, 0) + (b"codec" if name else b"")


def sound(*more: tuple[int, bytes]) -> bytes:
    file = File()
    return file.done(link("w", u64(file.dataset(b"\1" * 16))), *more)


@pytest.mark.parametrize("which", [OLD, NEW], ids=["old", "new"])
def test_a_real_file_passes_to_the_last_byte(which):
    """As h5py writes it, with a Keras model that has a layer named lambda_1."""
    judged = judge(real(which), "model.h5")
    assert judged.format == "hdf5" and rules(judged) == set() and not judged.unjudged and judged.data
    assert judged.facts["class_name"] == "Sequential" and judged.facts["layers"] == 1


def test_a_small_file_passes():
    """A dataset, an attribute, a soft link, a link that leads back to the root, a hole of zeros."""
    file = File()
    first = file.dataset(b"\1" * 16, text("note", b"os.system"))
    file.put(bytes(100))
    soft = link("s", struct.pack("<H", 2) + b"/w", kind=1)
    judged = judge(file.done(link("w", u64(first)), soft, link("again", u64(first))))
    assert rules(judged) == set() and judged.data == 16


EXTERNAL = b"\0/etc/x.h5\0/x\0"
ATTACKS = {
    "external link": (lambda: sound(link("e", b"\x0e\0" + EXTERNAL, 64)), "hdf5.external.link", "block"),
    "link beside": (lambda: sound(link("e", struct.pack("<H", 8) + b"\0a.h5\0x\0", 64)), "hdf5.external.link", "block"),
    "own kind of link": (lambda: sound(link("e", struct.pack("<H", 2) + b"ab", 70)), "hdf5.link", "hold"),
    "unknown message": (lambda: sound((0x30, b"x")), "hdf5.unread", "hold"),
    "pickle": (lambda: sound(text("title", b"\x80\x04K\1.")), "hdf5.pickle", "hold"),
    "old pickle": (lambda: sound(text("title", b"cposix\nsystem\n(S'echo'\ntR.")), "hdf5.pickle", "hold"),
    "broken attribute": (lambda: sound((0x0C, b"\3\0\xff\xff")), "hdf5.structure", "block"),
    "unknown version": (lambda: sound((0x0C, b"\x09" + bytes(20))), "hdf5.structure", "block"),
    "no object there": (lambda: sound(link("x", u64(4))), "hdf5.structure", "block"),
    "past the end": (lambda: sound(link("x", u64(1 << 62))), "hdf5.truncated", "block"),
    "endless": (lambda: sound((0x10, u64(48, 1 << 63))), "hdf5.truncated", "block"),
}  # fmt: skip


@pytest.mark.parametrize("how", ATTACKS)
def test_each_trick_is_named(how):
    """Links that leave the file, pickles, structures that break the format."""
    make, rule, severity = ATTACKS[how]
    assert (rule, severity) in rules(judge(make()))


def dataset(*more: tuple[int, bytes], layout: bytes | None = None) -> bytes:
    file = File()
    if layout is None:
        return file.done(link("w", u64(file.dataset(b"\1" * 16, *more))))
    return file.done(link("w", u64(file.object(SPACE, TYPE, (8, layout), *more))))


@pytest.mark.parametrize(("content", "rule", "severity"), [
    (dataset((7, b"\1" + bytes(40))), "hdf5.external.storage", "block"),
    (dataset(layout=b"\4\3" + u64(0) + bytes(4)), "hdf5.virtual", "hold"),
    (dataset(pipeline(32013)), "hdf5.filter", "hold"),
    (dataset(layout=b"\3\1" + u64(1 << 40, 16)), "hdf5.truncated", "block"),
    (dataset(layout=b"\3\1" + u64(48, 1 << 63)), "hdf5.truncated", "block"),
    (dataset(layout=b"\3\1" + u64(0, 16)), "hdf5.overlap", "block"),
    (dataset(layout=b"\x09\1" + u64(48, 16)), "hdf5.unread", "hold"),
])  # fmt: skip
def test_values_from_elsewhere_hold_or_block(content, rule, severity):
    """External storage, virtual datasets, plug-ins, values past the end or over the superblock."""
    assert (rule, severity) in rules(judge(content))


@pytest.mark.parametrize("number", [1, 2, 3, 32000])
def test_the_usual_filters_pass(number):
    """gzip, shuffle, fletcher32, and lzf, which h5py has built in."""
    assert rules(judge(dataset(pipeline(number)))) == set()


def test_two_datasets_on_the_same_bytes_block():
    """At the same place, and partly over each other."""
    for shift in (0, 4):
        file = File()
        first = file.put(b"\1" * 32)
        both = [file.dataset(b"\1" * 16, at=first), file.dataset(b"\1" * 16, at=first + shift)]
        judged = judge(file.done(*(link(f"w{at}", u64(at)) for at in both)))
        assert ("hdf5.overlap", "block") in rules(judged)


def test_a_model_with_code_in_its_configuration_blocks():
    """A Lambda layer with compiled Python, in the attribute where Keras keeps the model."""
    layer = {"class_name": "Lambda", "config": {"function": ["4wAAAA==", None, None], "function_type": "lambda"}}
    config = json.dumps({"class_name": "Sequential", "config": {"layers": [layer]}}).encode()
    assert ("keras.code", "block") in rules(judge(sound(text("model_config", config))))
    assert ("keras.code", "block") in rules(judge(sound(text("anything", config))))
    assert ("keras.json", "block") in rules(judge(sound(text("model_config", b'{"a":1,"a":2}'))))


@pytest.mark.parametrize("extra", ["tail", "hole", "user block"])
def test_bytes_that_belong_to_nothing_hold(extra):
    """After the end, in a hole, before the beginning."""
    file = File()
    first = file.dataset(b"\1" * 16)
    if extra == "hole":
        file.put(b"#!/bin/sh")
    whole = file.done(link("w", u64(first)), tail=b"PK\3\4 a zip" if extra == "tail" else b"")
    if extra == "user block":
        whole = b"MZ" + bytes(510) + whole[:12] + u64(512) + whole[20:28] + u64(len(whole) + 512) + whole[36:]
    judged = judge(whole)
    assert judged.format == "hdf5" and rules(judged) == {("scan.unjudged", "hold")}


@pytest.mark.parametrize("which", [OLD, NEW], ids=["old", "new"])
def test_a_file_that_is_cut_off_blocks(which):
    """Wherever it is cut."""
    whole = real(which)
    for length in (100, len(whole) // 2, len(whole) - 1):
        found = rules(judge(whole[:length]))
        assert found & {("hdf5.truncated", "block"), ("hdf5.structure", "block")}


def test_indexes_that_lead_back_to_themselves_end():
    """Every node may be read once."""
    whole = bytearray(real(OLD))
    node = whole.index(b"TREE")
    whole[node + 5] = 1  # its entries are said to be nodes, the first of them itself
    whole[node + 32 : node + 40] = u64(node)
    assert rules(judge(bytes(whole))) & {("hdf5.overlap", "block"), ("hdf5.structure", "block")}


@settings(max_examples=250, deadline=None)
@given(st.booleans(), st.integers(0, 1 << 16), st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_is_judged_and_never_a_crash(new, cut, at, put):
    """Any bytes anywhere, cut anywhere."""
    whole = real(NEW if new else OLD)
    judge(damaged(whole, cut % len(whole) if cut % 4 == 0 else 0, at % len(whole), put))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 255), st.binary(max_size=200))
def test_any_message_is_judged(kind, body):
    """Whatever it holds, in an object header."""
    judge(sound((kind, body)))
    judge(MAGIC + body)

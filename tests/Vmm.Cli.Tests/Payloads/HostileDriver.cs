using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Tests.Payloads;

/// <summary>
/// A guest whose driver of one virtio device is hostile: registers and configuration space in any size at any place, any order of status
/// bits, rings full of nonsense, doorbells of any number; all of it by instructions of the vCPU, from a seed. Between its attacks it reads
/// a sector of another disk as a driver should, and at the end the attacked device has to come up once more.
/// </summary>
/// <remarks>
/// What a device writes must not hit the program itself, or the guest would end itself. So descriptors lie where no device writes, and all
/// addresses, and all numbers that a balloon could take for pages, are of the arena, of rings and buffers, or of no RAM at all; whatever a
/// device can put into a ring by itself is then harmless too. The first 4 GiB are mapped anew, by tables beyond the reach of small numbers.
/// </remarks>
internal sealed class HostileDriver
{
    /// <summary>Guest memory that it is made for.</summary>
    internal const string Memory = "64M";

    /// <summary>What the neighbour's disk begins with.</summary>
    internal const ulong NeighboursData = 0x0123_4567_89AB_CDEF;

    /// <summary>What it prints in the end when all went well.</summary>
    internal const string Farewell = "still here\r\n";

    private const ulong PageTables = 0x70_0000;
    private const ulong NeighbourMemory = 0x78_0000;
    private const ulong Stack = 0x7F_0000;
    private const ulong Descriptors = 0x180_0000;
    private const ulong Rings = 0x1A0_0000;
    private const ulong Buffers = 0x1C0_0000;
    private const int AreaSize = 0x20_0000;
    private const ulong EndOfRam = 0x400_0000;
    private const int Queues = 5;
    private const int QueueSize = 16;

    private static readonly uint[] s_lengths = [0, 1, 2, 3, 4, 8, 10, 12, 16, 20, 24, 64, 255, 0x1000, 0x1001, 0x4000, 0x1_0000, 0x20_0000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF];
    private static readonly ushort[] s_flags = [0, 0, 1, 1, 2, 2, 2, 3, 4, 5, 6, 7, 0x80, 0x82, 0x8000, 0x8002, 0xFFFF];

    private readonly Assembler _a;
    private readonly Random _random;
    private readonly GuestVirtio _victim;
    private readonly GuestVirtio _neighbour = new(0xC000_1000, false);
    // What a correct driver would go on with: the next place in each queue's ring, and which layout the last set-up asked for.
    private readonly int[] _next = new int[Queues];
    private bool _packed;
    private Label _transact;
    private Label _lost;

    private HostileDriver(Assembler a, int seed, bool pci)
    {
        _a = a;
        _random = new Random(seed);
        _victim = pci ? new GuestVirtio(0xD000_0000, true) : new GuestVirtio(0xC000_2000, false);
        _transact = a.CreateLabel();
        _lost = a.CreateLabel();
    }

    /// <summary>A kernel file. The neighbour is the first virtio-mmio device, the victim the second one or the first on PCI.</summary>
    internal static byte[] Make(int seed, bool pci, int attacks) => GuestProgram.Elf(a => new HostileDriver(a, seed, pci).Program(attacks));

    private void Program(int attacks)
    {
        MapMemory();
        StartNeighbour();
        _victim.Enable(_a, 1);
        for (int i = 0; i < attacks; i++)
        {
            Attack();
            if (i % 25 == 24)
                _a.call(_transact);
        }
        _a.call(_transact);
        ComeUpAgain();
        _a.Print(Farewell);
        _a.PowerOff();
        Subroutines();
    }

    /// <summary>The first 4 GiB onto themselves by pages of 2 MiB.</summary>
    private void MapMemory()
    {
        Label next = _a.CreateLabel();
        _a.cld();
        _a.mov(rdi, PageTables);
        _a.xor(eax, eax);
        _a.mov(ecx, 6 * 512);
        _a.rep.stosq();
        Store(PageTables, (PageTables + 0x1000) | 3);
        for (uint i = 0; i < 4; i++)
            Store(PageTables + 0x1000 + (8 * i), (PageTables + 0x2000 + (0x1000 * i)) | 3);
        _a.mov(rdi, PageTables + 0x2000);
        _a.mov(eax, 0x83);
        _a.mov(ecx, 4 * 512);
        _a.Label(ref next);
        _a.stosq();
        _a.add(rax, 0x20_0000);
        _a.dec(ecx);
        _a.jnz(next);
        _a.mov(rax, PageTables);
        _a.mov(cr3, rax);
        _a.mov(rsp, Stack);
    }

    private void StartNeighbour()
    {
        _neighbour.Status(_a, 0);
        _neighbour.Status(_a, GuestVirtio.Acknowledge | GuestVirtio.Driver);
        _neighbour.AcceptFeatures(_a, (ulong)GuestVirtio.Version1 << 32);
        _neighbour.Status(_a, GuestVirtio.Acknowledge | GuestVirtio.Driver | GuestVirtio.FeaturesOk);
        _neighbour.Queue(_a, 0, 8, NeighbourMemory, NeighbourMemory + 0x1000, NeighbourMemory + 0x2000, enable: true);
        _neighbour.Status(_a, GuestVirtio.Acknowledge | GuestVirtio.Driver | GuestVirtio.FeaturesOk | GuestVirtio.DriverOk);
        // Read sector 0: a header, 512 bytes, a status.
        Descriptor(NeighbourMemory, NeighbourMemory + 0x3000, 16, 1, 1);
        Descriptor(NeighbourMemory + 16, NeighbourMemory + 0x4000, 512, 3, 2);
        Descriptor(NeighbourMemory + 32, NeighbourMemory + 0x5000, 1, 2, 0);
        _a.xor(r15d, r15d);
    }

    private void Subroutines()
    {
        Label wait = _a.CreateLabel();
        Label done = _a.CreateLabel();
        _a.Label(ref _transact);
        Store(NeighbourMemory + 0x4000, 0);
        GuestVirtio.Write8(_a, NeighbourMemory + 0x5000, 0xFF);
        _a.inc(r15d);
        _a.mov(rdi, NeighbourMemory + 0x1002);
        _a.mov(__word_ptr[rdi], r15w);
        _neighbour.Notify(_a, 0);
        _a.mov(rdi, NeighbourMemory + 0x2002);
        _a.mov(ecx, 2_000_000);
        _a.Label(ref wait);
        _a.pause();
        _a.cmp(__word_ptr[rdi], r15w);
        _a.je(done);
        _a.dec(ecx);
        _a.jnz(wait);
        _a.jmp(_lost);
        _a.Label(ref done);
        _a.mov(rdi, NeighbourMemory + 0x5000);
        _a.cmp(__byte_ptr[rdi], 0);
        _a.jne(_lost);
        _a.mov(rdi, NeighbourMemory + 0x4000);
        _a.mov(rax, NeighboursData);
        _a.cmp(__qword_ptr[rdi], rax);
        _a.jne(_lost);
        _a.ret();
        _a.Label(ref _lost);
        _a.Print("neighbour lost\r\n");
        _a.PowerOff();
    }

    private void Attack()
    {
        switch (_random.Next(16))
        {
            case 0:
                SetUp();
                break;
            case 1:
                _victim.Status(_a, OneOf<uint>([0, 0x80, 0x40, 0xFF, 1, 3, 4, 7, 8, 0x0B, 0x0F, SomeNumber()]));
                break;
            case < 4:
                Register(write: true);
                break;
            case 4:
                Register(write: false);
                break;
            case 5:
                Configuration();
                break;
            case 6:
                _victim.Queue(_a, SomeQueue(), SomeSize(), SomeDescriptors(), SomeRing(), SomeRing(), enable: _random.Next(2) == 0);
                break;
            case 7:
                _victim.ResetQueue(_a);
                break;
            case 8:
                for (int i = _random.Next(1, 20); i > 0; i--)
                    _victim.Notify(_a, OneOf<uint>([SomeQueue(), SomeQueue(), SomeNumber()]));
                break;
            case < 12:
                Offer();
                break;
            default:
                Fill();
                break;
        }
    }

    /// <summary>What a driver does to start the device, for the most part with rings where <see cref="Fill"/> puts them.</summary>
    private void SetUp()
    {
        if (_random.Next(8) != 0)
            _victim.Status(_a, 0);
        _victim.Status(_a, 3);
        _packed = _random.Next(2) == 0;
        uint upper = (SomeNumber() & ~5u) | (_packed ? 4u : 0) | (_random.Next(10) == 0 ? 0 : GuestVirtio.Version1);
        _victim.AcceptFeatures(_a, ((ulong)upper << 32) | SomeNumber());
        if (_random.Next(12) != 0)
            _victim.Status(_a, 0x0B);
        for (uint queue = 0; queue < Queues; queue++)
        {
            // The rings as they were left, or empty.
            if (_random.Next(4) != 0)
            {
                _next[queue] = 0;
                Store(DriverRingOf(queue), 0);
                for (uint i = 0; _packed && i < QueueSize; i++)
                    Store(DescriptorsOf(queue) + (16 * i) + 8, 0);
            }
            if (_random.Next(10) != 0)
                _victim.Queue(_a, queue, QueueSize, DescriptorsOf(queue), DriverRingOf(queue), DeviceRingOf(queue), enable: true);
        }
        _victim.Status(_a, 0x0F);
        for (int i = _random.Next(12); i > 0; i--)
            Offer();
    }

    /// <summary>Makes chains available as a correct driver does; what they say to the device need not be right.</summary>
    private void Offer()
    {
        uint queue = (uint)_random.Next(_random.Next(2) == 0 ? 2 : Queues);
        for (int i = _random.Next(1, 4); i > 0; i--)
        {
            ulong header = Buffers + (ulong)(_random.Next(64) * 64);
            Store(header, OneOf<uint>([0, 1, 1, 2, 4, 8, 11, 13, 0xFFFF, 0x4000_0000]));
            Store(header + 8, OneOf<ulong>([0, 1, 7, 8, 0xFFFF, 1UL << 40]));
            switch (_random.Next(5))
            {
                case 0:
                    Chain(queue, new Piece(header, OneOf<uint>([4, 40, 255, 0x1000]), false));
                    break;
                case 1:
                    Chain(queue, new Piece(SomeBuffer(), OneOf<uint>([64, 0x1000, 0x4000]), true));
                    break;
                case 2:
                    Chain(queue, new Piece(header, 4, false), new Piece(Buffers + 0x1_0000, 4, true));
                    break;
                case 3:
                    Chain(queue, new Piece(header, 24, false), new Piece(Buffers + 0x1_0000, 16, true));
                    break;
                default:
                    Chain(queue, new Piece(header, 16, false), new Piece(Buffers + 0x1_0000, OneOf<uint>([0x200, 0x1000, 0x1_0000]), _random.Next(2) == 0), new Piece(Buffers + 0x1000, 1, true));
                    break;
            }
        }
        if (!_packed)
            GuestVirtio.Write16(_a, DriverRingOf(queue) + 2, (ushort)_next[queue]);
        _victim.Notify(_a, queue);
    }

    private void Chain(uint queue, params ReadOnlySpan<Piece> buffers)
    {
        int head = (_packed ? _next[queue] : 3 * _next[queue]) % QueueSize;
        for (int i = 0; i < buffers.Length; i++)
        {
            int place = (head + i) % QueueSize;
            int flags = (i < buffers.Length - 1 ? 1 : 0) | (buffers[i].Writable ? 2 : 0);
            ulong at = DescriptorsOf(queue) + (16 * (ulong)place);
            // Of a packed ring the last word is the flags, with the ring's turn in them, and the one before it the buffer's number.
            if (_packed)
                Descriptor(at, buffers[i].Address, buffers[i].Length, (ushort)head, (ushort)(flags | (((_next[queue]++ / QueueSize) & 1) == 0 ? 0x80 : 0x8000)));
            else
                Descriptor(at, buffers[i].Address, buffers[i].Length, (ushort)flags, (ushort)((place + 1) % QueueSize));
        }
        if (!_packed)
            GuestVirtio.Write16(_a, DriverRingOf(queue) + 4 + (2 * (ulong)(_next[queue]++ % QueueSize)), (ushort)head);
    }

    /// <summary>Buffers for a queue, as a split ring and a packed one may have them, and a ring of its doorbell.</summary>
    private void Fill()
    {
        uint queue = (uint)_random.Next(Queues);
        ulong table = DescriptorsOf(queue);
        for (int i = _random.Next(8); i > 0; i--)
            Descriptor(table + (16 * (ulong)_random.Next(QueueSize)), SomeBuffer(), OneOf(s_lengths), OneOf(s_flags), (ushort)_random.Next(QueueSize + 1));
        ulong ring = DriverRingOf(queue);
        for (int i = _random.Next(4); i > 0; i--)
            GuestVirtio.Write16(_a, ring + 4 + (2 * (ulong)_random.Next(QueueSize + 1)), SomeIndex());
        GuestVirtio.Write16(_a, ring, (ushort)OneOf([0, 0, 1, 0x8000]));
        // The index goes on by a little, as a driver's does, or jumps.
        _a.mov(rdi, ring + 2);
        if (_random.Next(6) == 0)
            _a.mov(__word_ptr[rdi], (ushort)_random.Next(0x1_0000));
        else
            _a.add(__word_ptr[rdi], (ushort)_random.Next(1, QueueSize));
        _victim.Notify(_a, queue);
    }

    private void Register(bool write)
    {
        int size = 1 << _random.Next(4);
        // The registers more often than what lies behind them.
        int offset = _random.Next(_random.Next(2) == 0 ? 0x100 : _victim.Length - size);
        if (_random.Next(4) != 0)
            offset &= ~3;
        Access(_victim.Address + (ulong)offset, size, write);
    }

    private void Configuration()
    {
        for (int i = _random.Next(1, 6); i > 0; i--)
            Access(_victim.Configuration + (ulong)_random.Next(_random.Next(3) == 0 ? 0xF00 : 0x48), 1 << _random.Next(4), _random.Next(2) == 0);
    }

    private void Access(ulong address, int size, bool write)
    {
        _a.mov(rdi, address);
        _a.mov(rax, ((ulong)SomeNumber() << 32) | SomeNumber());
        switch (size)
        {
            case 1 when write:
                _a.mov(__byte_ptr[rdi], al);
                break;
            case 2 when write:
                _a.mov(__word_ptr[rdi], ax);
                break;
            case 4 when write:
                _a.mov(__dword_ptr[rdi], eax);
                break;
            case 8 when write:
                _a.mov(__qword_ptr[rdi], rax);
                break;
            case 1:
                _a.mov(al, __byte_ptr[rdi]);
                break;
            case 2:
                _a.mov(ax, __word_ptr[rdi]);
                break;
            case 4:
                _a.mov(eax, __dword_ptr[rdi]);
                break;
            default:
                _a.mov(rax, __qword_ptr[rdi]);
                break;
        }
    }

    /// <summary>After all that a reset makes it a new device, which a driver can start.</summary>
    private void ComeUpAgain()
    {
        _victim.Status(_a, 0);
        _victim.Status(_a, 3);
        _victim.AcceptFeatures(_a, (ulong)GuestVirtio.Version1 << 32);
        _victim.Status(_a, 0x0B);
        _victim.Status(_a, 0x0F);
        Label up = _a.CreateLabel();
        _a.mov(rdi, _victim.StatusRegister);
        if (_victim.IsPci)
            _a.movzx(eax, __byte_ptr[rdi]);
        else
            _a.mov(eax, __dword_ptr[rdi]);
        _a.cmp(eax, 0x0F);
        _a.je(up);
        _a.Print("the device stays down\r\n");
        _a.PowerOff();
        _a.Label(ref up);
    }

    private void Descriptor(ulong at, ulong address, uint length, ushort flags, ushort next)
    {
        Store(at, address);
        Store(at + 8, length | ((ulong)flags << 32) | ((ulong)next << 48));
    }

    private void Store(ulong address, ulong value)
    {
        _a.mov(rdi, address);
        _a.mov(rax, value);
        _a.mov(__qword_ptr[rdi], rax);
    }

    private static ulong DescriptorsOf(uint queue) => Descriptors + (0x1_0000 * queue);

    private static ulong DriverRingOf(uint queue) => Rings + (0x1_0000 * queue);

    private static ulong DeviceRingOf(uint queue) => Rings + (0x1_0000 * queue) + 0x8000;

    private uint SomeQueue() => _random.Next(8) == 0 ? SomeNumber() : (uint)_random.Next(Queues);

    private uint SomeSize() => OneOf<uint>([0, 1, 2, 3, 8, QueueSize, QueueSize, 256, 257, 0x8000, 0xFFFF, SomeNumber()]);

    private ulong SomeDescriptors() => _random.Next(3) == 0 ? Nowhere() : Descriptors + (ulong)_random.Next(AreaSize - 0x1_0000);

    private ulong SomeRing() => _random.Next(3) == 0 ? Nowhere() : Rings + (ulong)_random.Next(AreaSize - 0x1_0000);

    private ulong SomeBuffer() => _random.Next(8) switch
    {
        0 => Nowhere(),
        1 => Rings + (ulong)_random.Next(AreaSize),
        _ => Buffers + (ulong)_random.Next(AreaSize),
    };

    /// <summary>No RAM, or its very end.</summary>
    private ulong Nowhere() => _random.Next(6) switch
    {
        0 => EndOfRam - (ulong)_random.Next(1, 64),
        1 => EndOfRam,
        2 => 0xC000_2000,
        3 => ulong.MaxValue - (ulong)_random.Next(64),
        4 => 1UL << _random.Next(32, 64),
        _ => (ulong)_random.NextInt64() | (1UL << 40),
    };

    // Below the size, or larger than any page of the guest's.
    private ushort SomeIndex() => (ushort)(_random.Next(5) == 0 ? _random.Next(0x8000, 0x1_0000) : _random.Next(QueueSize));

    private uint SomeNumber() => _random.Next(4) switch
    {
        0 => (uint)_random.Next(8),
        1 => 1u << _random.Next(32),
        _ => (uint)_random.NextInt64(1L << 32),
    };

    private T OneOf<T>(ReadOnlySpan<T> values) => values[_random.Next(values.Length)];

    /// <summary>A buffer of a chain.</summary>
    private readonly record struct Piece(ulong Address, uint Length, bool Writable);
}

using FsCheck;
using FsCheck.Fluent;
using Vmm.Core.Memory;
using Vmm.Virtio.Queues;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Queues;

/// <summary>
/// Random steps of a driver and a device over one queue agree with a model that knows nothing of rings: no buffer is lost, doubled,
/// changed or out of order, and doorbells and interrupts come exactly when they must.
/// </summary>
public sealed class QueueModelTests
{
    private static readonly Config s_fixed = Config.QuickThrowOnFailure.WithMaxTest(150).WithStartSize(20).WithEndSize(400).WithReplay(20260101, 1);

    [Theory]
    [MemberData(nameof(RingFeatures.AllData), MemberType = typeof(RingFeatures))]
    public void Both_layouts_agree_with_the_model(int features) =>
        Check.One(s_fixed, Prop.ForAll<byte, (byte Step, byte Argument)[]>((shape, steps) =>
        {
            using var model = new Model(RingFeatures.Of(features), shape);
            foreach ((byte step, byte argument) in steps)
                model.Step(step, argument);
            model.Finish();
        }));

    /// <summary>The rings of 16 bits wrap around, which random steps alone do not reach.</summary>
    [Theory]
    [MemberData(nameof(RingFeatures.AllData), MemberType = typeof(RingFeatures))]
    public void Also_after_65530_buffers(int features)
    {
        var random = new Random(features);
        using var model = new Model(RingFeatures.Of(features), 3);
        for (int i = 0; i < 65530; i++)
            model.RoundTrip();
        for (int i = 0; i < 3000; i++)
            model.Step(random.Next(256), random.Next(256));
        model.Finish();
    }

    private sealed class Model : IDisposable
    {
        private readonly GuestRam _ram = GuestRam.Allocate([(0, 1 << 20)], default);
        private readonly RecordingHost _host = new();
        private readonly QueueCounters _counters = new(0);
        private readonly RingFeatures _features;
        private readonly DriverQueue _driver;
        private readonly ulong _data;
        private VirtQueue _queue = null!;

        // The model: each buffer is in one of these.
        private readonly LinkedList<Buffer> _added = [];
        private readonly List<Buffer> _taken = [];
        private readonly List<Buffer> _early = [];
        private readonly Queue<Buffer> _staged = new();
        private readonly Queue<Buffer> _visible = new();
        // Positions count buffers (split) or ring entries (packed) since the beginning.
        private readonly long _period;
        private long _addedTo, _kickedTo, _takenTo, _stagedTo, _visibleTo, _reapedTo;
        private long? _interruptAt, _doorbellAt;
        private bool _interrupts = true, _doorbells = true;
        private int _expectedInterrupts, _expectedRings;
        private long _order;

        public Model(RingFeatures features, byte shape)
        {
            _features = features;
            ushort size = (ushort)(features.Packed ? 1 + (shape % 12) : 1 << (shape % 5));
            var arena = new GuestArena(_ram.Memory, 0x1000, 0x80000);
            _data = 0x80000;
            _driver = features.Packed ? new PackedDriverQueue(arena, _host, 0, size, features) : new SplitDriverQueue(arena, _host, 0, size, features);
            _period = features.Packed ? 2 * size : 65536;
            // Rings begin zeroed: the first entry is wanted, where an index says so.
            if (features.EventIndex && !features.Packed)
                _interruptAt = _doorbellAt = 0;
            Open(VirtQueueState.Initial);
        }

        public void Step(int step, int argument)
        {
            switch (step % 12)
            {
                case 0 or 1 or 2:
                    Add(argument);
                    break;
                case 3:
                    _driver.Kick();
                    if (Wanted(_doorbellAt, _doorbells, _kickedTo, _addedTo))
                        _expectedRings++;
                    _kickedTo = _addedTo;
                    Assert.Equal(_expectedRings, _driver.Rings);
                    break;
                case 4 or 5:
                    Take();
                    break;
                case 6:
                    Untake();
                    break;
                case 7 or 8:
                    GiveBack(argument);
                    break;
                case 9:
                    Flush();
                    break;
                case 10:
                    Reap();
                    break;
                default:
                    Other(argument);
                    break;
            }
            Assert.False(_queue.IsBroken, string.Join("; ", _host.ResetReasons));
        }

        /// <summary>One buffer through the whole queue, without looking at anything but the buffer.</summary>
        public void RoundTrip()
        {
            Add(0);
            Take();
            GiveBack(0);
            Flush();
            Reap();
            _driver.Kick();
            if (Wanted(_doorbellAt, _doorbells, _kickedTo, _addedTo))
                _expectedRings++;
            _kickedTo = _addedTo;
        }

        /// <summary>Everything comes back.</summary>
        public void Finish()
        {
            while (_taken.Count > 0 || _added.Count > 0)
            {
                if (_added.Count > 0)
                    Take();
                if (_taken.Count > 0)
                    GiveBack(_taken.Count - 1);
            }
            Flush();
            Reap();
            Assert.Equal(0, _driver.InFlight);
            Assert.Equal(_driver.Size, _driver.FreeDescriptors);
            Assert.False(_queue.HasAvailable);
            Assert.Equal(_order, _counters.Requests);
        }

        public void Dispose()
        {
            _driver.Doorbell.Dispose();
            _ram.Dispose();
        }

        private void Open(VirtQueueState state)
        {
            var activation = new VirtioActivation(_features.Bits, _ram.Memory, _host);
            Assert.True(VirtQueue.TryCreate(_driver.Setup(state), activation, _counters, out VirtQueue? queue, out string? problem), problem);
            _queue = queue!;
        }

        private void Add(int argument)
        {
            int readable = argument % 3;
            int writable = (argument / 3 % 3) + (readable == 0 ? 1 : 0);
            bool indirect = _features.Indirect && argument % 2 == 0;
            var buffers = new GuestBuffer[readable + writable];
            for (int i = 0; i < buffers.Length; i++)
                buffers[i] = new GuestBuffer(_data + (ulong)((argument * 64) + (i * 8)), (uint)(1 + ((argument + i) % 8)), i >= readable);
            int entries = indirect ? 1 : buffers.Length;
            int free = _driver.FreeDescriptors;
            int token = _driver.Add(buffers, indirect);
            if (token < 0)
            {
                Assert.True(entries > free);
                return;
            }
            Assert.Equal(free - entries, _driver.FreeDescriptors);
            _added.AddLast(new Buffer(token, buffers, _features.Packed ? entries : 1));
            _addedTo += _added.Last!.Value.Entries;
        }

        private void Take()
        {
            Assert.Equal(_added.Count > 0, _queue.HasAvailable);
            Assert.Equal(_added.Count > 0, _queue.TryTake(out DescriptorChain? chain));
            if (chain == null)
                return;
            Buffer buffer = _added.First!.Value;
            _added.RemoveFirst();
            buffer.Chain = chain;
            _taken.Add(buffer);
            _takenTo += buffer.Entries;
            buffer.Order = _order++;
            Assert.Equal(buffer.Token, chain.Id);
            Assert.Equal(Segments(buffer, false), chain.Readable.ToArray());
            Assert.Equal(Segments(buffer, true), chain.Writable.ToArray());
            Assert.Equal(buffer.Room, chain.WritableLength);
        }

        private GuestSegment[] Segments(Buffer buffer, bool writable) =>
            [.. buffer.Buffers.Where(b => b.Writable == writable).Select(b => new GuestSegment(_ram.Memory.Regions[0].HostAddress + (nint)b.Address, b.Length))];

        private void Untake()
        {
            // Only the one that was taken last, if the device still has it.
            if (_taken.Count == 0 || _taken[^1].Order != _order - 1)
                return;
            Buffer buffer = _taken[^1];
            _taken.RemoveAt(_taken.Count - 1);
            _queue.Untake(buffer.Chain!);
            _order--;
            _takenTo -= buffer.Entries;
            _added.AddFirst(buffer);
        }

        private void GiveBack(int argument)
        {
            if (_taken.Count == 0)
                return;
            Buffer buffer = _taken[argument % _taken.Count];
            _taken.Remove(buffer);
            buffer.Written = argument % 4 == 0 ? (uint)(argument % (int)(buffer.Room + 1)) : buffer.Room;
            _queue.GiveBack(buffer.Chain!, buffer.Written);
            _early.Add(buffer);
            _early.Sort((a, b) => a.Order.CompareTo(b.Order));
            while (_early.Count > 0 && (!_features.InOrder || _taken.TrueForAll(t => t.Order > _early[0].Order)))
            {
                _stagedTo += _early[0].Entries;
                _staged.Enqueue(_early[0]);
                _early.RemoveAt(0);
            }
        }

        private void Flush()
        {
            _queue.Flush();
            Published();
        }

        private void Published()
        {
            if (_stagedTo > _visibleTo && Wanted(_interruptAt, _interrupts, _visibleTo, _stagedTo))
                _expectedInterrupts++;
            _visibleTo = _stagedTo;
            while (_staged.TryDequeue(out Buffer? buffer))
                _visible.Enqueue(buffer);
            Assert.Equal(_expectedInterrupts, _host.Interrupts(0));
        }

        private void Reap()
        {
            while (_driver.TryGetUsed(out UsedBuffer used))
            {
                Assert.NotEmpty(_visible);
                Buffer buffer = _visible.Dequeue();
                Assert.Equal((buffer.Token, buffer.Written), (used.Token, used.Written));
                Assert.Equal(buffer.Buffers, used.Buffers);
                _reapedTo += buffer.Entries;
            }
            Assert.Empty(_visible);
        }

        private void Other(int argument)
        {
            switch (argument % 5)
            {
                case 0:
                    _queue.SuppressNotifications();
                    if (_features.Packed || !_features.EventIndex)
                        (_doorbells, _doorbellAt) = (false, null);
                    break;
                case 1:
                    Assert.Equal(_added.Count > 0, _queue.RequestNotifications());
                    (_doorbells, _doorbellAt) = (true, _features.EventIndex ? _takenTo : null);
                    break;
                case 2:
                    _driver.EnableInterrupts();
                    (_interrupts, _interruptAt) = (true, _features.EventIndex ? _reapedTo : null);
                    break;
                case 3:
                    _driver.DisableInterrupts();
                    if (_features.EventIndex && !_features.Packed)
                        _interruptAt = _reapedTo - 1;
                    else
                        (_interrupts, _interruptAt) = (false, null);
                    break;
                default:
                    // Stopped and started anew, with all that was taken given back.
                    while (_taken.Count > 0)
                        GiveBack(0);
                    VirtQueueState state = _queue.State;
                    Published();
                    Open(state);
                    Assert.Equal(state, _queue.State);
                    // Chains of the old queue do not count on.
                    Assert.Equal((ushort)(_features.Packed ? _takenTo % _driver.Size : _takenTo), state.NextAvailable);
                    Assert.Equal(state.NextAvailable, state.NextUsed);
                    Assert.Equal(state.AvailableWrap, state.UsedWrap);
                    break;
            }
        }

        /// <summary>Whether the step from one position to another passes the wanted one, which comes again each period.</summary>
        private bool Wanted(long? at, bool on, long from, long to)
        {
            if (!on || at == null)
                return on;
            for (long p = at.Value; p < to; p += _period)
            {
                if (p >= from)
                    return true;
            }
            return false;
        }

        private sealed class Buffer(int token, GuestBuffer[] buffers, int entries)
        {
            public readonly int Token = token;
            public readonly GuestBuffer[] Buffers = buffers;
            public readonly int Entries = entries;
            public readonly uint Room = (uint)buffers.Where(b => b.Writable).Sum(b => b.Length);
            public DescriptorChain? Chain;
            public uint Written;
            public long Order;
        }
    }
}

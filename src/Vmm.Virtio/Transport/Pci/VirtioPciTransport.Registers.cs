using System.Buffers.Binary;
using Vmm.Core.Bus;
using static Vmm.Virtio.Transport.Pci.VirtioPciRegisters;

namespace Vmm.Virtio.Transport.Pci;

/// <summary>The registers in BAR 0, and the way to them through configuration space.</summary>
internal sealed partial class VirtioPciTransport
{
    private bool TouchesAccessData(int offset, int length)
    {
        int data = _accessCapability + VirtioPciCapabilities.Data;
        return offset < data + sizeof(uint) && offset + length > data;
    }

    /// <summary>What the PCI configuration access capability selects (§4.1.4.9); false where that is no register.</summary>
    private bool TryGetAccess(out ulong offset, out int length)
    {
        offset = _configuration.ReadUInt32(_accessCapability + VirtioPciCapabilities.Offset);
        uint wanted = _configuration.ReadUInt32(_accessCapability + VirtioPciCapabilities.Length);
        length = (int)wanted;
        byte bar = (byte)_configuration.ReadUInt16(_accessCapability + VirtioPciCapabilities.Bar);
        return bar == VirtioPciLayout.RegistersBar && wanted is 1 or 2 or 4 && offset % wanted == 0 && offset < _layout.RegistersSize;
    }

    private void ReadThroughCapability()
    {
        if (!TryGetAccess(out ulong offset, out int length))
            return;
        Span<byte> data = stackalloc byte[sizeof(uint)];
        data.Clear();
        ReadRegisters(offset, data[..length]);
        _configuration.Store32(_accessCapability + VirtioPciCapabilities.Data, BinaryPrimitives.ReadUInt32LittleEndian(data));
    }

    private void WriteThroughCapability()
    {
        if (!TryGetAccess(out ulong offset, out int length))
            return;
        Span<byte> data = stackalloc byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32LittleEndian(data, _configuration.ReadUInt32(_accessCapability + VirtioPciCapabilities.Data));
        WriteRegisters(offset, data[..length]);
    }

    private void ReadRegisters(ulong offset, Span<byte> data)
    {
        if (offset < VirtioPciLayout.Isr)
        {
            ReadCommon((int)offset, data);
        }
        else if (offset < VirtioPciLayout.DeviceConfiguration)
        {
            data.Fill(0xFF);
            if (offset == VirtioPciLayout.Isr)
                data[0] = _interrupts.TakeIsr();
        }
        else if (offset < VirtioPciLayout.Notify)
        {
            _core.ReadConfiguration(offset - VirtioPciLayout.DeviceConfiguration, data);
        }
        else if (offset >= (ulong)_layout.MsixPending)
        {
            _interrupts.Msix.ReadPending((int)offset - _layout.MsixPending, data);
        }
        else if (offset >= (ulong)_layout.MsixTable)
        {
            _interrupts.Msix.ReadTable((int)offset - _layout.MsixTable, data);
        }
        else
        {
            data.Fill(0xFF);
        }
    }

    private void WriteRegisters(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset < VirtioPciLayout.Isr)
            WriteCommon((int)offset, data);
        else if (offset >= (ulong)_layout.MsixPending)
            return;
        else if (offset >= (ulong)_layout.MsixTable)
            _interrupts.Msix.WriteTable((int)offset - _layout.MsixTable, data);
        else if (offset >= VirtioPciLayout.Notify)
            Notify(offset);
        else if (offset >= VirtioPciLayout.DeviceConfiguration)
            WriteDevice(offset - VirtioPciLayout.DeviceConfiguration, data);
    }

    private void WriteDevice(ulong offset, ReadOnlySpan<byte> data)
    {
        _core.Settle();
        if (!_core.IsResetting)
            _core.WriteConfiguration(offset, data);
    }

    /// <summary>A doorbell that no ioeventfd took. The address alone says which (§4.1.4.4).</summary>
    private void Notify(ulong offset) => _core.Notify((uint)((offset - VirtioPciLayout.Notify) / NotifyMultiplier));

    /// <summary>
    /// Any part of the structure can be read at any width: the one side effect of a read is that a reset whose wait is over is complete.
    /// </summary>
    private void ReadCommon(int offset, Span<byte> data)
    {
        _core.Settle();
        if (offset > Common.Length - data.Length)
        {
            data.Fill(0xFF);
            return;
        }
        Span<byte> all = stackalloc byte[Common.Length];
        all.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(all[Common.DeviceFeatureSelect..], _core.DeviceFeaturesSelect);
        BinaryPrimitives.WriteUInt32LittleEndian(all[Common.DeviceFeature..], _core.DeviceFeatures);
        BinaryPrimitives.WriteUInt32LittleEndian(all[Common.DriverFeatureSelect..], _core.DriverFeaturesSelect);
        BinaryPrimitives.WriteUInt32LittleEndian(all[Common.DriverFeature..], _core.DriverFeatures);
        BinaryPrimitives.WriteUInt16LittleEndian(all[Common.ConfigMsixVector..], _interrupts.ConfigurationVector);
        BinaryPrimitives.WriteUInt16LittleEndian(all[Common.NumQueues..], (ushort)_core.Queues.Length);
        all[Common.DeviceStatus] = _core.VisibleStatus;
        all[Common.ConfigGeneration] = (byte)_core.ConfigurationGeneration;
        BinaryPrimitives.WriteUInt16LittleEndian(all[Common.QueueSelect..], (ushort)_core.QueueSelect);
        BinaryPrimitives.WriteUInt16LittleEndian(all[Common.QueueMsixVector..], NoVector);
        if (_core.SelectedQueue is { } queue)
        {
            BinaryPrimitives.WriteUInt16LittleEndian(all[Common.QueueSize..], queue.Size);
            BinaryPrimitives.WriteUInt16LittleEndian(all[Common.QueueMsixVector..], _interrupts.QueueVector(queue.Index));
            BinaryPrimitives.WriteUInt16LittleEndian(all[Common.QueueEnable..], queue.Enabled ? (ushort)1 : (ushort)0);
            BinaryPrimitives.WriteUInt16LittleEndian(all[Common.QueueNotifyOff..], (ushort)queue.Index);
            BinaryPrimitives.WriteUInt64LittleEndian(all[Common.QueueDesc..], queue.DescriptorArea);
            BinaryPrimitives.WriteUInt64LittleEndian(all[Common.QueueDriver..], queue.DriverArea);
            BinaryPrimitives.WriteUInt64LittleEndian(all[Common.QueueDevice..], queue.DeviceArea);
            BinaryPrimitives.WriteUInt16LittleEndian(all[Common.QueueReset..], queue.Ending == QueueEnding.Reset ? (ushort)1 : (ushort)0);
        }
        all.Slice(offset, data.Length).CopyTo(data);
    }

    /// <summary>
    /// A field is written at its own width (§4.1.3.1), an address also in halves; the rest is dropped, and everything during a reset.
    /// </summary>
    private void WriteCommon(int offset, ReadOnlySpan<byte> data)
    {
        _core.Settle();
        if (_core.IsResetting)
            return;
        switch (data.Length)
        {
            case 1 when offset == Common.DeviceStatus:
                _core.WriteStatus(data[0]);
                break;
            case 2:
                WriteCommon16(offset, BinaryPrimitives.ReadUInt16LittleEndian(data));
                break;
            case 4:
                WriteCommon32(offset, BinaryPrimitives.ReadUInt32LittleEndian(data));
                break;
            case 8 when offset is Common.QueueDesc or Common.QueueDriver or Common.QueueDevice:
                WriteCommon32(offset, BinaryPrimitives.ReadUInt32LittleEndian(data));
                WriteCommon32(offset + 4, BinaryPrimitives.ReadUInt32LittleEndian(data[4..]));
                break;
        }
    }

    private void WriteCommon16(int offset, ushort value)
    {
        switch (offset)
        {
            case Common.ConfigMsixVector:
                _interrupts.ConfigurationVector = value;
                break;
            case Common.QueueSelect:
                _core.QueueSelect = value;
                break;
            case Common.QueueSize:
                _core.SetQueueSize(value);
                break;
            case Common.QueueMsixVector when _core.SelectedQueue is { Ending: QueueEnding.None } queue:
                _interrupts.SetQueueVector(queue.Index, value);
                break;
            // A driver does not write 0 here (§4.1.4.3.2): it resets the queue.
            case Common.QueueEnable when value == 1:
                _core.EnableQueue();
                break;
            case Common.QueueReset when value == 1:
                _core.ResetQueue();
                break;
        }
    }

    private void WriteCommon32(int offset, uint value)
    {
        switch (offset)
        {
            case Common.DeviceFeatureSelect:
                _core.DeviceFeaturesSelect = value;
                break;
            case Common.DriverFeatureSelect:
                _core.DriverFeaturesSelect = value;
                break;
            case Common.DriverFeature:
                _core.WriteDriverFeatures(value);
                break;
            case Common.QueueDesc or Common.QueueDesc + 4:
                _core.SetQueueAddress(QueueArea.Descriptor, offset != Common.QueueDesc, value);
                break;
            case Common.QueueDriver or Common.QueueDriver + 4:
                _core.SetQueueAddress(QueueArea.Driver, offset != Common.QueueDriver, value);
                break;
            case Common.QueueDevice or Common.QueueDevice + 4:
                _core.SetQueueAddress(QueueArea.Device, offset != Common.QueueDevice, value);
                break;
        }
    }

    /// <summary>BAR 0 on the MMIO bus.</summary>
    private sealed class RegistersBar(VirtioPciTransport transport) : IBusDevice
    {
        public void Read(ulong offset, Span<byte> data)
        {
            // Read once per INTx: not worth waiting for a vCPU that stops a queue.
            if (offset == VirtioPciLayout.Isr)
            {
                transport.ReadRegisters(offset, data);
                return;
            }
            using (transport._core.Gate.Enter())
                transport.ReadRegisters(offset, data);
        }

        public void Write(ulong offset, ReadOnlySpan<byte> data)
        {
            if (offset >= VirtioPciLayout.Notify && offset < (ulong)transport._layout.MsixTable)
            {
                transport.Notify(offset);
                return;
            }
            using (transport._core.Gate.Enter())
                transport.WriteRegisters(offset, data);
        }
    }
}

using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Vmm.Core.Tests.Interop;

/// <summary>Size and field offsets of a struct as the runtime lays it out, found by writing ones into a field and looking where they are.</summary>
internal static class StructLayoutOf
{
    public static int Size(Type type) => (int)Call(nameof(SizeOf), type)!;

    /// <summary>Offset and size of a field.</summary>
    public static (int Offset, int Size) Field(Type type, FieldInfo field)
    {
        object boxed = Call(nameof(Default), type)!;
        field.SetValue(boxed, Call(nameof(Ones), field.FieldType.IsPointer ? typeof(nint) : field.FieldType));
        byte[] bytes = (byte[])Call(nameof(Bytes), type, boxed)!;
        int first = Array.IndexOf(bytes, (byte)0xFF);
        int last = Array.LastIndexOf(bytes, (byte)0xFF);
        return (first, last - first + 1);
    }

    private static object? Call(string method, Type type, params object[] arguments) =>
        typeof(StructLayoutOf).GetMethod(method, BindingFlags.Static | BindingFlags.NonPublic)!.MakeGenericMethod(type).Invoke(null, arguments);

    private static int SizeOf<T>() where T : unmanaged => Unsafe.SizeOf<T>();

    private static T Default<T>() where T : unmanaged => default;

    private static T Ones<T>() where T : unmanaged
    {
        T value = default;
        MemoryMarshal.AsBytes(new Span<T>(ref value)).Fill(0xFF);
        return value;
    }

    private static byte[] Bytes<T>(T value) where T : unmanaged => MemoryMarshal.AsBytes(new Span<T>(ref value)).ToArray();
}

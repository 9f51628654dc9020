using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Core;
using Vmm.Testing.Triage;

namespace Vmm.Testing.Tests.Triage;

/// <summary>Addresses get the names of functions, from a System.map or an ELF file.</summary>
public sealed class KernelSymbolsTests : IDisposable
{
    private const string Map =
        "0000000000000000 D __per_cpu_start\n0000000000001000 A fixed_percpu_data\nffffffff81000000 T startup_64\nffffffff81000000 T _stext\nffffffff81000000 T _text\n"
        + "ffffffff81000040 t verify_cpu\nffffffff810001a0 T sev_verify_cbit\nffffffff810001a0 W weak_one\nffffffff81000200 t __pfx_do_one.cold\nffffffff81000210 t do_one.cold\n"
        + "ffffffff81e00000 T _etext\nffffffff82000000 R __start_rodata\nffffffff82a00000 d some_data\nffffffff83000000 T _sinittext\nffffffff83000010 T start_kernel\n"
        + "ffffffff83400000 T _einittext\nffffffff84000000 B _end\n";

    private readonly string _directory = Directory.CreateTempSubdirectory("vmm-symbols-").FullName;

    public void Dispose() => Directory.Delete(_directory, true);

    [Theory]
    [InlineData("\n")]
    [InlineData("\r\n")]
    public void A_system_map_names_functions(string newline)
    {
        KernelSymbols symbols = KernelSymbols.Load(Write("System.map", Map.Replace("\n", newline, StringComparison.Ordinal)));
        Check(symbols, 0xffffffff81000000, "startup_64", 0);
        Check(symbols, 0xffffffff8100003f, "startup_64", 0x3f);
        Check(symbols, 0xffffffff81000040, "verify_cpu", 0);
        Check(symbols, 0xffffffff810001ff, "sev_verify_cbit", 0x5f);
        Check(symbols, 0xffffffff81dfffff, "do_one.cold", 0xdffdef);
        Check(symbols, 0xffffffff83000015, "start_kernel", 5);
        foreach (ulong address in (ulong[])[0, 0x1000, 0xffffffff80ffffff, 0xffffffff81e00000, 0xffffffff82a00008, 0xffffffff82ffffff, 0xffffffff83400000, 0xffffffff84000000, ulong.MaxValue])
            Assert.False(symbols.TryFind(address, out _, out _), $"{address:x}");
    }

    [Fact]
    public void A_kernel_somewhere_else_is_found_by_its_offset()
    {
        KernelSymbols symbols = KernelSymbols.Load(Write("System.map", Map));
        symbols.Offset = 0x1a000000;
        Check(symbols, 0xffffffff9b000045, "verify_cpu", 5);
        Assert.False(symbols.TryFind(0xffffffff81000045, out _, out _));
        symbols.Offset = unchecked((ulong)-0x1000L);
        Check(symbols, 0xffffffff80fff045, "verify_cpu", 5);
    }

    [Theory]
    [InlineData("[    5.1] Kernel Offset: 0x1a000000 from 0xffffffff81000000 (relocation range: 0xffffffff80000000-0xffffffffbfffffff)", 0x1a000000UL)]
    [InlineData("Kernel Offset: 0x0 from 0xffffffff81000000", 0UL)]
    [InlineData("[    5.100000][    T1] Kernel Offset: disabled", 0UL)]
    public void A_panic_says_the_offset(string line, ulong expected)
    {
        Assert.True(KernelSymbols.TryReadKernelOffset(line, out ulong offset));
        Assert.Equal(expected, offset);
    }

    [Theory]
    [InlineData("")]
    [InlineData("Kernel Offset: ")]
    [InlineData("Kernel Offset: 0x")]
    [InlineData("Kernel Offset: 0x1ffffffffffffffff from 0xffffffff81000000")]
    [InlineData("Kernel Offset: 0x12z")]
    [InlineData("Kernel Offset: 1a000000")]
    public void Other_lines_do_not(string line) => Assert.False(KernelSymbols.TryReadKernelOffset(line, out _));

    [Fact]
    public void An_elf_file_names_the_same_functions_as_nm()
    {
        string elf = Compile();
        KernelSymbols symbols = KernelSymbols.Load(elf);
        int checkedSymbols = 0;
        foreach (string line in Run("nm", "-n", "--defined-only", elf).Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] parts = line.Split(' ', 3);
            if (!parts[2].StartsWith("test_", StringComparison.Ordinal))
                continue;
            ulong address = ulong.Parse(parts[0], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);
            bool found = symbols.TryFind(address + 1, out string name, out ulong offset);
            Assert.Equal(parts[1] is "T" or "t" or "W", found);
            if (!found)
                continue;
            // Of two names for one function, as good as each other, the first of the alphabet.
            Assert.Equal(parts[2] == "test_global" ? "test_alias" : parts[2], name);
            Assert.Equal(1UL, offset);
            checkedSymbols++;
        }

        Assert.Equal(5, checkedSymbols);
    }

    [Fact]
    public void The_map_that_nm_writes_gives_the_same()
    {
        string elf = Compile();
        KernelSymbols one = KernelSymbols.Load(elf);
        string map = Run("nm", "-n", elf);
        KernelSymbols two = KernelSymbols.Load(Write("System.map", map));
        foreach (string name in (string[])["test_alias", "test_static", "test_weak", "test_other"])
        {
            ulong address = ulong.Parse(map.Split('\n').Single(line => line.EndsWith(" " + name, StringComparison.Ordinal))[..16], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);
            Check(one, address + 2, name, 2);
            Check(two, address + 2, name, 2);
        }
    }

    [Theory]
    [InlineData("", "is empty")]
    [InlineData("hello\n", "line 1")]
    [InlineData("ffffffff81000000 T _text\nffffffff81000000 T\n", "line 2")]
    [InlineData("ffffffff8100000z T _text\n", "line 1")]
    [InlineData("ffffffff81000000 7 _text\n", "line 1")]
    [InlineData("ffffffff81000000\tT _text\n", "line 1")]
    [InlineData("ffffffff81000000 D data\n", "names no function")]
    [InlineData("\u007fELF", "ends before")]
    [InlineData("\u007fELF\u0001\u0001\u0001000000000000000000000000000000000000000000000000000000000000000000000000", "not a 64-bit")]
    public void What_is_neither_is_refused_in_one_sentence(string content, string why)
    {
        VmmException e = Assert.Throws<VmmException>(() => KernelSymbols.Load(Write("file", content)));
        AssertSentence(e);
        Assert.Contains(why, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void What_is_no_file_is_refused()
    {
        string fifo = Path.Combine(_directory, "fifo");
        Run("mkfifo", fifo);
        foreach (string path in (string[])["", "a\0b", Path.Combine(_directory, "missing"), _directory, fifo, "/dev/zero", "/dev/null"])
            AssertSentence(Assert.Throws<VmmException>(() => KernelSymbols.Load(path)));
    }

    [Fact]
    public void A_stripped_file_is_refused()
    {
        string elf = Compile();
        Run("strip", elf);
        VmmException e = Assert.Throws<VmmException>(() => KernelSymbols.Load(elf));
        AssertSentence(e);
        Assert.Contains("stripped", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_huge_file_is_not_read_whole()
    {
        string path = Write("huge", "");
        using (FileStream file = File.OpenWrite(path))
            file.SetLength(1L << 30);
        long before = GC.GetAllocatedBytesForCurrentThread();
        AssertSentence(Assert.Throws<VmmException>(() => KernelSymbols.Load(path)));
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 1024 * 1024);

        // A real one whose file goes on for long.
        string elf = Compile();
        using (FileStream file = File.OpenWrite(elf))
            file.SetLength(1L << 30);
        before = GC.GetAllocatedBytesForCurrentThread();
        Assert.True(KernelSymbols.Load(elf).Count > 5);
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 4 * 1024 * 1024);
    }

    [Fact]
    public void Damaged_elf_files_give_symbols_or_one_sentence()
    {
        byte[] good = File.ReadAllBytes(Compile());
        ulong sections = BinaryPrimitives.ReadUInt64LittleEndian(good.AsSpan(40));
        int loaded = 0;
        for (int seed = 0; seed < 600; seed++)
        {
            var random = new Random(seed);
            byte[] bad = [.. good];
            for (int i = random.Next(1, 12); i > 0; i--)
            {
                // Most of it in the headers, where it hurts.
                int at = random.Next(4) switch
                {
                    0 => random.Next(64),
                    1 or 2 => (int)sections + random.Next(bad.Length - (int)sections),
                    _ => random.Next(bad.Length),
                };
                bad[at] = random.Next(3) switch { 0 => 0xFF, 1 => 0, _ => (byte)random.Next(256) };
            }

            string path = Path.Combine(_directory, "bad");
            File.WriteAllBytes(path, random.Next(5) == 0 ? bad[..random.Next(bad.Length)] : bad);
            try
            {
                KernelSymbols symbols = KernelSymbols.Load(path);
                for (int i = 0; i < 20; i++)
                    symbols.TryFind(unchecked((ulong)random.NextInt64()) >> random.Next(64), out _, out _);
                loaded++;
            }
            catch (VmmException e)
            {
                AssertSentence(e);
            }
        }

        Assert.InRange(loaded, 20, 580);
    }

    [Fact]
    public void Any_map_finds_what_a_search_by_hand_finds() =>
        Prop.ForAll(Gen.Choose(0, int.MaxValue).ToArbitrary(), seed =>
        {
            var random = new Random(seed);
            var symbols = new SortedDictionary<ulong, (string Name, bool IsText)>();
            for (int i = random.Next(1, 60); i >= 0; i--)
                symbols[0xffffffff81000000 + (ulong)random.Next(4000)] = ($"s{i}", random.Next(3) > 0);
            symbols[0xffffffff81000000 + 4000] = ("a_function", true);
            string map = string.Concat(symbols.OrderBy(_ => random.Next()).Select(symbol => $"{symbol.Key:x} {(symbol.Value.IsText ? "tTW"[random.Next(3)] : "dDbBrR"[random.Next(6)])} {symbol.Value.Name}\n"));
            KernelSymbols loaded = KernelSymbols.Load(Write("any", map));
            for (ulong address = 0xffffffff81000000 - 5; address < 0xffffffff81000000 + 4100; address += (ulong)random.Next(1, 40))
            {
                KeyValuePair<ulong, (string Name, bool IsText)> nearest = symbols.LastOrDefault(symbol => symbol.Key <= address);
                if (nearest.Value.IsText)
                    Check(loaded, address, nearest.Value.Name, address - nearest.Key);
                else
                    Assert.False(loaded.TryFind(address, out _, out _));
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(50));

    [Fact]
    public void Nonsense_for_a_map_gives_one_sentence()
    {
        for (int seed = 0; seed < 500; seed++)
        {
            var random = new Random(seed);
            byte[] bytes = Encoding.UTF8.GetBytes(Map);
            for (int i = random.Next(1, 20); i > 0; i--)
                bytes[random.Next(bytes.Length)] = (byte)random.Next(256);
            string path = Path.Combine(_directory, "nonsense");
            File.WriteAllBytes(path, bytes[..random.Next(bytes.Length)]);
            try
            {
                KernelSymbols.Load(path).TryFind(0xffffffff81000041, out _, out _);
            }
            catch (VmmException e)
            {
                AssertSentence(e);
            }
        }
    }

    [Fact]
    public void Lines_across_blocks_are_whole()
    {
        var map = new StringBuilder();
        for (int i = 0; i < 20_000; i++)
            map.Append(CultureInfo.InvariantCulture, $"{0xffffffff81000000 + ((ulong)i * 16):x} T function_{i}{new string('x', i % 70)}\n");
        KernelSymbols symbols = KernelSymbols.Load(Write("long", map.ToString().TrimEnd('\n')));
        Assert.Equal(20_000, symbols.Count);
        for (int i = 0; i < 20_000; i++)
            Check(symbols, 0xffffffff81000000 + ((ulong)i * 16) + 7, $"function_{i}{new string('x', i % 70)}", 7);
    }

    private static void Check(KernelSymbols symbols, ulong address, string name, ulong offset)
    {
        Assert.True(symbols.TryFind(address, out string found, out ulong at), $"{address:x}");
        Assert.Equal((name, offset), (found, at));
    }

    private static void AssertSentence(VmmException e)
    {
        Assert.Equal(VmmErrorKind.Configuration, e.Kind);
        Assert.DoesNotContain('\n', e.Message);
        Assert.True(e.Message.Length is > 20 and < 500, e.Message);
        Assert.True(e.Message[^1] == '.' || e.InnerException != null, e.Message);
    }

    private static string Run(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        using Process process = Process.Start(start)!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"{program}: {error.Result}");
        return output;
    }

    private string Compile()
    {
        string source = Write("test.c", """
            int test_data = 1;
            __attribute__((noinline)) static int test_static(int x) { return x * 3 + test_data; }
            int test_global(int x) { return test_static(x) + 1; }
            int test_alias(int x) __attribute__((alias("test_global")));
            __attribute__((weak)) int test_weak(int x) { return x + test_data + 7; }
            __attribute__((section(".init.text"))) int test_other(int x) { return x + test_data + 9; }
            int main(void) { return test_global(1) + test_weak(2) + test_other(3); }
            """);
        string elf = Path.Combine(_directory, "test.elf");
        Run("cc", "-O1", "-no-pie", "-o", elf, source);
        return elf;
    }

    private string Write(string name, string content)
    {
        string path = Path.Combine(_directory, name);
        File.WriteAllText(path, content);
        return path;
    }
}

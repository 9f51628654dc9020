# files.pl PATH SEED SECONDS OPERATIONS: random reads, writes and truncations of a file, each compared with what a string has, until
# either is reached (0 for no limit). The same seed gives the same operations.
use strict;
use warnings;
use Fcntl qw(:DEFAULT SEEK_SET);
my ($path, $seed, $seconds, $operations) = @ARGV;
my $largest = 256 * 1024;
my $model = '';
my $end = time + $seconds;
my $done = 0;
srand $seed;
sysopen(my $file, $path, O_RDWR | O_CREAT | O_TRUNC) or die "open: $!";
while ((!$seconds || time < $end) && (!$operations || $done < $operations)) {
    my $kind = int rand 100;
    my $at = int rand $largest;
    my $length = 1 + int rand(rand() < 0.8 ? 8192 : 65536);
    $done++;
    if ($kind < 45) {
        sysseek($file, $at, SEEK_SET) or die "seek: $!";
        my $got = '';
        sysread($file, $got, $length) // die "operation $done: read: $!";
        my $wanted = $at < length $model ? substr($model, $at, $length) : '';
        $got eq $wanted or die "operation $done: $length bytes at $at are not what was written (" . length($got) . " bytes read, " . length($wanted) . " wanted)";
    } elsif ($kind < 85) {
        my $data = pack('N', $done) x ($length / 4 + 1);
        $data = substr($data, 0, $length);
        $model .= "\0" x ($at - length $model) if $at > length $model;
        substr($model, $at, $length) = $data;
        sysseek($file, $at, SEEK_SET) or die "seek: $!";
        (syswrite($file, $data) // -1) == $length or die "operation $done: write: $!";
    } elsif ($kind < 93) {
        truncate($file, $at) or die "operation $done: truncate: $!";
        $model = $at < length $model ? substr($model, 0, $at) : $model . "\0" x ($at - length $model);
    } elsif ($kind < 96) {
        (-s $file) == length $model or die "operation $done: the size is " . (-s $file) . ", not " . length $model;
    } else {
        close $file or die "operation $done: close: $!";
        if ($kind < 98 && open(my $caches, '>', '/proc/sys/vm/drop_caches')) {
            print $caches 3;
        }
        sysopen($file, $path, O_RDWR) or die "operation $done: open: $!";
    }
}
close $file or die "close: $!";
open(my $again, '<:raw', $path) or die "open: $!";
local $/;
my $all = <$again> // '';
$all eq $model or die 'at the end: the file is not what was written';
print "operations $done\n";

$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$WarningPreference = 'SilentlyContinue'
$ConfirmPreference = 'None'
try { [Console]::OutputEncoding = [Text.UTF8Encoding]::new($false) } catch { $null = $_ }
$giltHere = $PSScriptRoot
$giltRoot = 'C:\ProgramData\gilt'
$script:giltStep = 'request'

# The request may hold secrets: it is gone from the disk once it is read.
function Read-GiltRequest {
    $path = Join-Path $giltHere 'request.json'
    $text = [IO.File]::ReadAllText($path)
    Remove-Item -LiteralPath $path -Force
    ConvertFrom-Json -InputObject $text
}

# In base64, so that neither code page nor width of a console changes it.
function Write-GiltAnswer($answer) {
    $json = ConvertTo-Json -InputObject $answer -Depth 8 -Compress
    [Console]::Out.WriteLine('gilt-answer ' + [Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes($json)))
}

function Get-GiltFailure($record) {
    $inner = $record.Exception
    while ($inner.InnerException) { $inner = $inner.InnerException }
    @{ ok = $false; message = [string]$record.Exception.Message; hresult = [int]$inner.HResult; step = [string]$script:giltStep }
}

# A program that must end well; what it said is in the error.
function Invoke-GiltProgram([string]$program, [string[]]$arguments, [int[]]$good) {
    $before = $ErrorActionPreference
    $ErrorActionPreference = 'Continue'
    $said = & $program @arguments 2>&1 | Out-String
    $code = $LASTEXITCODE
    $ErrorActionPreference = $before
    if ($good -notcontains $code) { throw ('{0} ended with {1}: {2}' -f $program, $code, $said.Trim()) }
    $code
}

function Test-GiltValue([string]$key, [string]$name) {
    if (-not (Test-Path -LiteralPath $key)) { return $false }
    $null -ne (Get-ItemProperty -LiteralPath $key).PSObject.Properties[$name]
}

function Get-GiltValue([string]$key, [string]$name) {
    if (Test-GiltValue $key $name) { (Get-ItemProperty -LiteralPath $key).$name } else { $null }
}

# What waits for a restart. Soft: installers leave it behind without need.
function Get-GiltPending($furtherKeys) {
    $found = [Collections.ArrayList]::new()
    $cbs = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing'
    foreach ($name in 'RebootPending', 'RebootInProgress', 'PackagesPending') {
        if (Test-Path -LiteralPath (Join-Path $cbs $name)) { [void]$found.Add(@{ source = 'CBS ' + $name; soft = $false }) }
    }
    $wu = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\WindowsUpdate\Auto Update'
    foreach ($name in 'RebootRequired', 'PostRebootReporting') {
        if (Test-Path -LiteralPath (Join-Path $wu $name)) { [void]$found.Add(@{ source = 'Windows Update ' + $name; soft = $false }) }
    }
    $manager = 'HKLM:\SYSTEM\CurrentControlSet\Control\Session Manager'
    foreach ($name in 'PendingFileRenameOperations', 'PendingFileRenameOperations2') {
        if (Test-GiltValue $manager $name) { [void]$found.Add(@{ source = $name; soft = $true }) }
    }
    $volatile = Get-GiltValue 'HKLM:\SOFTWARE\Microsoft\Updates' 'UpdateExeVolatile'
    if ($volatile) { [void]$found.Add(@{ source = 'UpdateExeVolatile'; soft = $false }) }
    if (Test-Path -LiteralPath 'HKLM:\SOFTWARE\Microsoft\ServerManager\CurrentRebootAttempts') {
        [void]$found.Add(@{ source = 'ServerManager CurrentRebootAttempts'; soft = $false })
    }
    $name = 'HKLM:\SYSTEM\CurrentControlSet\Control\ComputerName'
    $active = Get-GiltValue (Join-Path $name 'ActiveComputerName') 'ComputerName'
    $wanted = Get-GiltValue (Join-Path $name 'ComputerName') 'ComputerName'
    if ($active -ne $wanted) { [void]$found.Add(@{ source = 'computer name'; soft = $false }) }
    $netlogon = 'HKLM:\SYSTEM\CurrentControlSet\Services\Netlogon'
    foreach ($value in 'JoinDomain', 'AvoidSpnSet') {
        if (Test-GiltValue $netlogon $value) { [void]$found.Add(@{ source = 'Netlogon ' + $value; soft = $false }) }
    }
    try {
        if ((New-Object -ComObject Microsoft.Update.SystemInfo).RebootRequired) {
            [void]$found.Add(@{ source = 'Microsoft.Update.SystemInfo'; soft = $false })
        }
    } catch { $null = $_ }
    foreach ($key in @($furtherKeys)) {
        if ($key -and (Test-Path -LiteralPath $key)) { [void]$found.Add(@{ source = [string]$key; soft = $false }) }
    }
    , $found.ToArray()
}

# Servicing that still works, or waits to.
function Test-GiltServicing {
    $cbs = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing'
    [bool](Get-Process -Name TiWorker -ErrorAction SilentlyContinue) -or
        (Test-Path -LiteralPath (Join-Path $cbs 'PackagesPending')) -or
        (Test-Path -LiteralPath (Join-Path $cbs 'RebootInProgress'))
}

# A task that runs hidden, on batteries too, as SYSTEM or as an account with its password.
function Register-GiltTask([string]$name, [string]$arguments, [string]$account, [string]$password) {
    $action = New-ScheduledTaskAction -Execute (Join-Path $env:SystemRoot 'System32\cmd.exe') -Argument $arguments
    $settings = New-ScheduledTaskSettingsSet -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -Hidden -ExecutionTimeLimit ([TimeSpan]::FromHours(24))
    if ($account) {
        [void](Register-ScheduledTask -TaskName $name -Action $action -Settings $settings -User $account -Password $password -RunLevel Highest -Force)
    } else {
        $principal = New-ScheduledTaskPrincipal -UserId 'S-1-5-18' -LogonType ServiceAccount -RunLevel Highest
        [void](Register-ScheduledTask -TaskName $name -Action $action -Settings $settings -Principal $principal -Force)
    }
}

function Set-GiltKeyFile([string]$path, [string[]]$lines) {
    $fresh = $path + '.new'
    [IO.File]::WriteAllLines($fresh, $lines, [Text.ASCIIEncoding]::new())
    # sshd refuses a file that others may write. SIDs: names of groups are translated.
    [void](Invoke-GiltProgram 'icacls.exe' @($fresh, '/inheritance:r', '/grant', '*S-1-5-32-544:F', '/grant', '*S-1-5-18:F', '/q') @(0))
    Move-Item -LiteralPath $fresh -Destination $path -Force
}

# The one logon of the build account and its password.
function Clear-GiltLogon {
    $winlogon = 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon'
    foreach ($name in 'AutoAdminLogon', 'AutoLogonCount', 'AutoLogonSID', 'DefaultDomainName', 'DefaultUserName', 'DefaultPassword') {
        if (Test-GiltValue $winlogon $name) { Remove-ItemProperty -LiteralPath $winlogon -Name $name -Force }
    }
    $code = @'
using System;
using System.Runtime.InteropServices;
public static class GiltLsa {
    [StructLayout(LayoutKind.Sequential)] struct Text { public ushort Length; public ushort Room; public IntPtr Buffer; }
    [StructLayout(LayoutKind.Sequential)] struct Attributes { public int Length; public IntPtr Root; public IntPtr Name; public int Flags; public IntPtr Descriptor; public IntPtr Quality; }
    [DllImport("advapi32.dll")] static extern uint LsaOpenPolicy(IntPtr system, ref Attributes attributes, uint access, out IntPtr policy);
    [DllImport("advapi32.dll")] static extern uint LsaStorePrivateData(IntPtr policy, ref Text name, IntPtr data);
    [DllImport("advapi32.dll")] static extern uint LsaClose(IntPtr policy);
    public static uint Forget(string name) {
        var attributes = new Attributes { Length = Marshal.SizeOf(typeof(Attributes)) };
        IntPtr policy;
        uint status = LsaOpenPolicy(IntPtr.Zero, ref attributes, 0x20, out policy);
        if (status != 0) return status;
        var text = new Text { Length = (ushort)(name.Length * 2), Room = (ushort)(name.Length * 2 + 2), Buffer = Marshal.StringToHGlobalUni(name) };
        status = LsaStorePrivateData(policy, ref text, IntPtr.Zero);
        LsaClose(policy);
        return status;
    }
}
'@
    if (-not ('GiltLsa' -as [type])) { Add-Type -TypeDefinition $code }
    $status = [GiltLsa]::Forget('DefaultPassword')
    # 0xC0000034: there is none.
    if (($status -ne 0) -and ($status -ne 3221225524)) { throw ('the stored logon password cannot be removed: 0x{0:x}' -f $status) }
}

# In specialize, as SYSTEM, before anybody has logged on.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$giltRoot = 'C:\ProgramData\gilt'
$giltStep = 'start'
function Write-GiltSerial([string]$text) {
    try {
        $port = [IO.Ports.SerialPort]::new('COM1', 115200)
        $port.Open()
        $port.Write("gilt-windows: $text`r`n")
        $port.Close()
    } catch { $null = $_ }
    Add-Content -LiteralPath (Join-Path $giltRoot 'setup.log') -Value ('{0:o} {1}' -f [DateTime]::UtcNow, $text) -Encoding UTF8
}
function Set-GiltPolicy([string]$key, [string]$name, [int]$value) {
    if (-not (Test-Path -LiteralPath $key)) { [void](New-Item -Path $key -Force) }
    [void](New-ItemProperty -LiteralPath $key -Name $name -Value $value -PropertyType DWord -Force)
}
try {
    [void](New-Item -ItemType Directory -Path (Join-Path $giltRoot 'run') -Force)
    [void](& icacls.exe $giltRoot /inheritance:r /grant '*S-1-5-32-544:(OI)(CI)F' /grant '*S-1-5-18:(OI)(CI)F' /q)
    Write-GiltSerial 'first-boot started'
    $settings = ConvertFrom-Json -InputObject ([IO.File]::ReadAllText((Join-Path $PSScriptRoot 'settings.json')))
    $giltStep = 'policies'
    # Each update of an app for one user makes Sysprep fail; Sysprep's stage before capture takes all this back.
    Set-GiltPolicy 'HKLM:\SOFTWARE\Policies\Microsoft\WindowsStore' 'AutoDownload' 2
    Set-GiltPolicy 'HKLM:\SOFTWARE\Policies\Microsoft\Windows\CloudContent' 'DisableWindowsConsumerFeatures' 1
    Set-GiltPolicy 'HKLM:\SOFTWARE\Policies\Microsoft\Windows\WindowsUpdate\AU' 'NoAutoUpdate' 1
    Set-GiltPolicy 'HKLM:\SYSTEM\CurrentControlSet\Control\BitLocker' 'PreventDeviceEncryption' 1
    # A shutdown that hibernates is no shutdown: the disk would not be clean.
    Set-GiltPolicy 'HKLM:\SYSTEM\CurrentControlSet\Control\Session Manager\Power' 'HiberbootEnabled' 0
    $giltStep = 'commands'
    foreach ($line in @($settings.firstBoot)) {
        if (-not $line) { continue }
        & $env:ComSpec /d /c $line
        if ($LASTEXITCODE -ne 0) { throw ('"{0}" ended with {1}' -f $line, $LASTEXITCODE) }
    }
    Write-GiltSerial 'first-boot done'
} catch {
    Write-GiltSerial ('FAILED {0}: {1}' -f $giltStep, ([string]$_.Exception.Message -replace '\s+', ' '))
    exit 1
}
exit 0

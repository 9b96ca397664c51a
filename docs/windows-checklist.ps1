# Run in a Windows that gilt built (before or after it was generalized and deployed), as an administrator:
#
#   powershell.exe -ExecutionPolicy Bypass -File windows-checklist.ps1
#
# It changes nothing. It prints what differs from what gilt takes for granted; send that part back with your report.
$ErrorActionPreference = 'Continue'
$ProgressPreference = 'SilentlyContinue'
$differs = [Collections.ArrayList]::new()

function Test-Claim([string]$claim, [scriptblock]$check) {
    $found = ''
    try { $found = & $check } catch { $found = 'error: ' + $_.Exception.Message }
    if ($found -is [bool]) { $good = $found } else { $good = [string]::IsNullOrEmpty([string]$found) }
    if ($good) { Write-Output ('ok       ' + $claim) }
    else {
        Write-Output ('DIFFERS  {0}: {1}' -f $claim, $found)
        [void]$differs.Add(('{0}: {1}' -f $claim, $found))
    }
}

function Get-Value([string]$key, [string]$name) {
    if (-not (Test-Path -LiteralPath $key)) { return $null }
    $all = Get-ItemProperty -LiteralPath $key
    if ($null -eq $all.PSObject.Properties[$name]) { return $null }
    $all.$name
}

$version = 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion'
Write-Output ('build {0}.{1} {2} {3}' -f (Get-Value $version 'CurrentBuildNumber'), (Get-Value $version 'UBR'), (Get-Value $version 'EditionID'), [Globalization.CultureInfo]::CurrentUICulture.Name)
Write-Output ('PowerShell {0}' -f $PSVersionTable.PSVersion)

# Setup and the first logon
Test-Claim 'Setup took one answer file, and cached it without secrets' {
    $left = @(Get-ChildItem -Path 'C:\Windows\Panther\*.xml', 'C:\Windows\Panther\Unattend\*.xml', 'C:\Windows\System32\Sysprep\*.xml' -ErrorAction SilentlyContinue | Where-Object { Select-String -LiteralPath $_.FullName -Pattern '<Password>' -Quiet })
    if ($left.Count) { ($left | ForEach-Object { $_.FullName }) -join ', ' }
}
Test-Claim 'setuperr.log of Setup is empty' {
    $log = 'C:\Windows\Panther\setuperr.log'
    if ((Test-Path -LiteralPath $log) -and (Get-Item -LiteralPath $log).Length) { (Get-Content -LiteralPath $log -Tail 3) -join ' | ' }
}
Test-Claim 'no logon by itself is left' {
    $winlogon = 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon'
    if ((Get-Value $winlogon 'DefaultPassword') -or ((Get-Value $winlogon 'AutoAdminLogon') -eq '1')) { 'Winlogon still holds it' }
}
Test-Claim 'the disk has EFI, MSR and Windows, and no recovery partition' {
    $types = @(Get-Partition -DiskNumber 0 | Sort-Object -Property PartitionNumber | ForEach-Object { [string]$_.Type })
    if (($types -join ',') -ne 'System,Reserved,Basic') { $types -join ',' }
}
Test-Claim 'no volume is encrypted' {
    $bad = @(Get-BitLockerVolume -ErrorAction SilentlyContinue | Where-Object { [string]$_.VolumeStatus -ne 'FullyDecrypted' })
    if ($bad.Count) { ($bad | ForEach-Object { $_.MountPoint + ' ' + $_.VolumeStatus }) -join ', ' }
}
Test-Claim 'HiberbootEnabled is 0' {
    $value = Get-Value 'HKLM:\SYSTEM\CurrentControlSet\Control\Session Manager\Power' 'HiberbootEnabled'
    if ($value -ne 0) { [string]$value }
}

# The way in
Test-Claim 'sshd starts by itself or was put to manual by generalize' {
    $service = Get-Service -Name sshd -ErrorAction SilentlyContinue
    if (-not $service) { 'there is no sshd' }
}
Test-Claim 'administrators_authorized_keys is open to SYSTEM and administrators only' {
    $path = Join-Path $env:ProgramData 'ssh\administrators_authorized_keys'
    if (Test-Path -LiteralPath $path) {
        $others = @((Get-Acl -LiteralPath $path).Access | Where-Object { $_.IdentityReference.Translate([Security.Principal.SecurityIdentifier]).Value -notin 'S-1-5-18', 'S-1-5-32-544' })
        if ($others.Count) { ($others | ForEach-Object { [string]$_.IdentityReference }) -join ', ' }
    }
}
Test-Claim 'a script file with a mark is read as UTF-8' {
    $file = Join-Path $env:TEMP 'gilt-check.ps1'
    $umlaut = [string][char]0xE4
    [IO.File]::WriteAllText($file, "'" + $umlaut + "'", [Text.UTF8Encoding]::new($true))
    $said = & $file
    Remove-Item -LiteralPath $file
    if ($said -ne $umlaut) { 'it is not' }
}
Test-Claim 'the exit code of exit 7 in a script run by -File is 7' {
    $file = Join-Path $env:TEMP 'gilt-check.ps1'
    Set-Content -LiteralPath $file -Value 'exit 7'
    & powershell.exe -NoProfile -ExecutionPolicy Bypass -OutputFormat Text -File $file
    $code = $LASTEXITCODE
    Remove-Item -LiteralPath $file
    if ($code -ne 7) { [string]$code }
}

# Tasks, restarts, updates
Test-Claim 'the state of a scheduled task is Ready, Running or Queued in any language' {
    $state = [string](Get-ScheduledTask | Select-Object -First 1).State
    if ($state -notin 'Ready', 'Running', 'Queued', 'Disabled') { $state }
}
Test-Claim 'BootId is there' {
    $key = 'HKLM:\SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters'
    if ($null -eq (Get-Value $key 'BootId')) { 'it is not; LastBootUpTime alone proves a restart' }
}
Test-Claim 'the built-in administrator is found by its SID' {
    if (-not (Get-LocalUser | Where-Object { $_.SID.Value -like 'S-1-5-21-*-500' })) { 'it is not' }
}
Test-Claim 'RemainingWindowsReArmCount is told' {
    if ($null -eq (Get-CimInstance -ClassName SoftwareLicensingService).RemainingWindowsReArmCount) { 'it is not' }
}
Test-Claim 'the programs gilt calls are there' {
    $missing = @('icacls.exe', 'shutdown.exe', 'dism.exe', 'pnputil.exe', 'reagentc.exe', 'compact.exe', 'taskkill.exe', 'msiexec.exe' | Where-Object { -not (Get-Command -Name $_ -ErrorAction SilentlyContinue) })
    if ($missing.Count) { $missing -join ', ' }
}

# Generalized and deployed
Test-Claim 'GeneralizationState and CleanupState are 7 and 2 after sysprep' {
    $key = 'HKLM:\SYSTEM\Setup\Status\SysprepStatus'
    $found = '{0} and {1}' -f (Get-Value $key 'GeneralizationState'), (Get-Value $key 'CleanupState')
    if ($found -notin '7 and 2', ' and ') { $found }
}
Test-Claim 'Winre.wim is on this volume or Windows RE is enabled' {
    $file = Test-Path -LiteralPath 'C:\Windows\System32\Recovery\Winre.wim'
    $enabled = (& reagentc.exe /info | Out-String) -match 'harddisk\d'
    if (-not ($file -or $enabled)) { 'neither' }
}
Test-Claim 'nothing of the build is left (only after generalize)' {
    $left = @('C:\ProgramData\gilt', 'C:\Users\gilt-build' | Where-Object { Test-Path -LiteralPath $_ })
    if ($left.Count) { $left -join ', ' }
}

Write-Output ''
if ($differs.Count) {
    Write-Output ('{0} claims differ. Please report these lines:' -f $differs.Count)
    $differs
    exit 1
}
Write-Output 'Nothing differs.'
exit 0

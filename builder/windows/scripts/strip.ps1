# Takes out what the build brought: its account, its settings, its traces.
function Remove-GiltPath($removed, [string]$path) {
    if (Test-Path -Path $path) {
        Remove-Item -Path $path -Recurse -Force
        [void]$removed.Add($path)
    }
}
function Invoke-GiltVerb($request) {
    $removed = [Collections.ArrayList]::new()
    $script:giltStep = 'account'
    $user = Get-LocalUser | Where-Object { $_.Name -eq $request.buildUser }
    if ($user) {
        $sid = $user.SID.Value
        if ($sid -like 'S-1-5-21-*-500') { throw 'the build ran as the built-in administrator; give it an account of its own in communicator.username' }
        $until = [DateTime]::UtcNow.AddSeconds(120)
        while ($true) {
            Get-CimInstance -ClassName Win32_Process | ForEach-Object {
                $owner = Invoke-CimMethod -InputObject $_ -MethodName GetOwnerSid -ErrorAction SilentlyContinue
                if ($owner -and ($owner.Sid -eq $sid)) { Stop-Process -Id $_.ProcessId -Force -ErrorAction SilentlyContinue }
            }
            $userProfile = Get-CimInstance -ClassName Win32_UserProfile | Where-Object { $_.SID -eq $sid }
            if (-not $userProfile -or -not $userProfile.Loaded) { break }
            if ([DateTime]::UtcNow -gt $until) { throw 'the profile of the build account stays in use' }
            Start-Sleep -Milliseconds 500
        }
        if ($userProfile) {
            $folder = $userProfile.LocalPath
            Remove-CimInstance -InputObject $userProfile
            [void]$removed.Add($folder)
        }
        Remove-LocalUser -SID $user.SID
        [void]$removed.Add($request.buildUser)
    }
    $script:giltStep = 'logon'
    Clear-GiltLogon
    $script:giltStep = 'policies'
    foreach ($policy in @(
            @('HKLM:\SOFTWARE\Policies\Microsoft\WindowsStore', 'AutoDownload'),
            @('HKLM:\SOFTWARE\Policies\Microsoft\Windows\CloudContent', 'DisableWindowsConsumerFeatures'),
            @('HKLM:\SOFTWARE\Policies\Microsoft\Windows\WindowsUpdate\AU', 'NoAutoUpdate'))) {
        if (Test-GiltValue $policy[0] $policy[1]) {
            Remove-ItemProperty -LiteralPath $policy[0] -Name $policy[1] -Force
            [void]$removed.Add($policy[0] + ' ' + $policy[1])
        }
    }
    $script:giltStep = 'traces'
    foreach ($path in 'C:\Windows\Panther\unattend.xml', 'C:\Windows\Panther\Unattend', 'C:\Windows\System32\Sysprep\unattend.xml', 'C:\unattend.xml', 'C:\autounattend.xml', 'C:\$WINDOWS.~BT', 'C:\Windows\SoftwareDistribution\Download\*') {
        Remove-GiltPath $removed $path
    }
    Get-NetFirewallRule -Name 'gilt-ssh' -ErrorAction SilentlyContinue | ForEach-Object { [void]$removed.Add('firewall rule gilt-ssh') }
    # Files in use stay; the host looks for what matters once the machine is off.
    Remove-Item -Path 'C:\Windows\Temp\*' -Recurse -Force -ErrorAction SilentlyContinue
    $script:giltStep = 'compact'
    # What is stored compressed by the system would be read by the host, but not by every tool.
    [void](Invoke-GiltProgram 'compact.exe' @('/compactos:never') @(0))
    @{ removed = $removed.ToArray() }
}

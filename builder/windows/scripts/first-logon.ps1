# At the first and only logon of the build account by itself.
function Write-GiltSerial([string]$text) {
    try {
        $port = [IO.Ports.SerialPort]::new('COM1', 115200)
        $port.Open()
        $port.Write("gilt-windows: $text`r`n")
        $port.Close()
    } catch { $null = $_ }
    Add-Content -LiteralPath (Join-Path $giltRoot 'setup.log') -Value ('{0:o} {1}' -f [DateTime]::UtcNow, $text) -Encoding UTF8
}
function Start-GiltStep([string]$name) {
    $script:giltStep = $name
    Write-GiltSerial ('step ' + $name)
}
try {
    Write-GiltSerial 'first-logon started'
    $settings = ConvertFrom-Json -InputObject ([IO.File]::ReadAllText((Join-Path $PSScriptRoot 'settings.json')))

    Start-GiltStep 'drivers'
    $drivers = Join-Path (Split-Path -Path $PSScriptRoot -Qualifier) '$WinPEDriver$'
    if (Test-Path -LiteralPath $drivers) {
        # 259: nothing to add; 3010, 1641: a restart is needed.
        [void](Invoke-GiltProgram 'pnputil.exe' @('/add-driver', (Join-Path $drivers '*.inf'), '/subdirs', '/install') @(0, 259, 3010, 1641))
    }

    Start-GiltStep 'network'
    Get-NetConnectionProfile -ErrorAction SilentlyContinue | Set-NetConnectionProfile -NetworkCategory Private -ErrorAction SilentlyContinue

    Start-GiltStep 'openssh'
    if ($settings.openssh) {
        $package = Join-Path $PSScriptRoot $settings.openssh
        if ($package -like '*.msi') {
            $log = Join-Path $giltRoot 'openssh.log'
            [void](Invoke-GiltProgram 'msiexec.exe' @('/i', $package, '/qn', '/norestart', '/l*v', $log, 'ADDLOCAL=Server') @(0, 1641, 3010))
        } else {
            $programs = Join-Path $env:ProgramFiles 'OpenSSH'
            $unpacked = Join-Path $giltRoot 'openssh'
            Expand-Archive -LiteralPath $package -DestinationPath $unpacked -Force
            $installer = Get-ChildItem -LiteralPath $unpacked -Recurse -Filter 'install-sshd.ps1' | Select-Object -First 1
            if (-not $installer) { throw 'there is no install-sshd.ps1 in the OpenSSH archive' }
            Copy-Item -LiteralPath $installer.DirectoryName -Destination $programs -Recurse -Force
            & (Join-Path $programs 'install-sshd.ps1')
            Remove-Item -LiteralPath $unpacked -Recurse -Force
        }
    } elseif (-not (Get-Service -Name sshd -ErrorAction SilentlyContinue)) {
        [void](Add-WindowsCapability -Online -Name 'OpenSSH.Server~~~~0.0.1.0')
    }

    Start-GiltStep 'key'
    $ssh = Join-Path $env:ProgramData 'ssh'
    # The first start of the service makes its folder and its keys.
    Start-Service -Name sshd
    Set-GiltKeyFile (Join-Path $ssh 'administrators_authorized_keys') @([string]$settings.publicKey)
    if ([int]$settings.port -ne 22) {
        $config = Join-Path $ssh 'sshd_config'
        $lines = @(Get-Content -LiteralPath $config | Where-Object { $_ -notmatch '^\s*Port\s' })
        [IO.File]::WriteAllLines($config, [string[]](@('Port ' + [int]$settings.port) + $lines))
    }

    Start-GiltStep 'service'
    Set-Service -Name sshd -StartupType Automatic
    Restart-Service -Name sshd -Force
    Get-NetFirewallRule -Name 'gilt-ssh' -ErrorAction SilentlyContinue | Remove-NetFirewallRule
    [void](New-NetFirewallRule -Name 'gilt-ssh' -DisplayName 'gilt build' -Direction Inbound -Protocol TCP -LocalPort ([int]$settings.port) -Action Allow -Profile Any)

    Start-GiltStep 'clean'
    Clear-GiltLogon
    foreach ($copy in 'C:\Windows\Panther\unattend.xml', 'C:\Windows\Panther\Unattend\unattend.xml', 'C:\Windows\System32\Sysprep\unattend.xml') {
        if (Test-Path -LiteralPath $copy) { Remove-Item -LiteralPath $copy -Force }
    }
    Write-GiltSerial 'ready'
    # An empty desktop: profile and account can then go before capture.
    & shutdown.exe /l /f
} catch {
    Write-GiltSerial ('FAILED {0}: {1}' -f $script:giltStep, ([string]$_.Exception.Message -replace '\s+', ' '))
    exit 1
}
exit 0
